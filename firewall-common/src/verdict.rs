//! Verdicts, reasons and hooks: closed sets with one byte each on the wire.
//!
//! Zero is never a meaning: memory that was not written reads as "unknown", not as "allow".

/// Declares a closed set of wire bytes and the word each has in machine output.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal, $word:literal;)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant = $value,)+
        }

        impl $name {
            /// Every member of the set.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in machine output.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the wire byte; `None` for zero and for bytes that have no meaning.
            pub const fn from_wire(byte: u8) -> Option<Self> {
                match byte { $($value => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

wire_enum! {
    /// What happened to a flow.
    Verdict {
        /// It passed and nothing asked for a record.
        Allow = 1, "allow";
        /// It passed and is recorded.
        Audit = 2, "audit";
        /// It was stopped.
        Deny = 3, "deny";
    }
}

impl Verdict {
    /// Whether the packet or call goes on.
    pub const fn passes(self) -> bool {
        !matches!(self, Self::Deny)
    }
}

wire_enum! {
    /// Why a verdict was reached.
    Reason {
        /// A rule matched.
        Rule = 1, "rule";
        /// No rule matched: a default decided.
        Default = 2, "default";
        /// The packet could not be read far enough to judge it.
        ParseError = 3, "parse-error";
        /// The kernel's tables had no answer: no generation is in place, or it is damaged.
        NoPolicy = 4, "no-policy";
        /// The app is the kernel itself.
        Kernel = 5, "kernel";
        /// A reply on a connection that came from outside.
        Inbound = 6, "inbound";
        /// The address has names that get different verdicts, and the payload shows none.
        Ambiguous = 7, "ambiguous";
        /// The settings let no QUIC pass.
        Quic = 8, "quic";
        /// The name in a QUIC Initial decides, and nobody is there to read it.
        Unattended = 9, "unattended";
    }
}

wire_enum! {
    /// Where a verdict was reached.
    Hook {
        /// `connect()`.
        Connect = 1, "connect";
        /// `sendto()` or `sendmsg()` with an address.
        Sendmsg = 2, "sendmsg";
        /// The packet, on its way out.
        Packet = 3, "packet";
        /// A question for a name.
        Dns = 4, "dns";
        /// The server name in a TLS ClientHello.
        Tls = 5, "tls";
        /// The host in an HTTP/1 request.
        Http = 6, "http";
        /// The server name in a QUIC Initial.
        Quic = 7, "quic";
    }
}

wire_enum! {
    /// How a name was learned.
    Via {
        /// The app asked for it.
        Dns = 1, "dns";
        /// TLS ClientHello.
        Tls = 2, "tls";
        /// HTTP/1 request.
        Http = 3, "http";
        /// QUIC Initial.
        Quic = 4, "quic";
        /// The firewall has looked it up ahead.
        Ahead = 5, "ahead";
    }
}

wire_enum! {
    /// How sure it is that a flow goes to a name.
    Confidence {
        /// The flow itself says so.
        Confirmed = 1, "confirmed";
        /// The app asked for one name alone that has this address.
        Unique = 2, "unique";
        /// The address has several names, or somebody else asked for it.
        Ambiguous = 3, "ambiguous";
    }
}
