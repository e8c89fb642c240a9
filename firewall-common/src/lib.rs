//! What the kernel programs and user space share: wire types, packet parsers and the one matcher.
#![no_std]
