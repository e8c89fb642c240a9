//! Builds the kernel programs, so that the object can be embedded in the binary.
//!
//! The toolchain for them is found here, without configuration, by the code that `cargo xtask
//! setup` uses to see whether there is something left to install.

#[path = "../xtask/src/toolchain.rs"]
#[allow(dead_code, reason = "setup uses more of it")]
mod toolchain;

fn main() {
    let manifest = env!("CARGO_MANIFEST_DIR");
    // aya-build watches the sources of the kernel programs alone.
    for path in
        ["../firewall-common", "../Cargo.toml", "../Cargo.lock", "../xtask/src/toolchain.rs"]
    {
        println!("cargo::rerun-if-changed={manifest}/{path}");
    }
    println!("cargo::rerun-if-changed={manifest}/build.rs");

    let found = match toolchain::find() {
        Ok(found) => found,
        Err(misfits) => {
            println!(
                "cargo::error=nothing on this machine can build the kernel programs ({}); \
                 run `cargo xtask setup`, which installs what is missing",
                misfits.join("; ")
            );
            return;
        }
    };
    // What the verifier says of a program depends on it, so measurements show it.
    println!("cargo::rustc-env=FIREWALL_EBPF_COMPILER={}", found.version);
    if let Some(linker) = toolchain::which("bpf-linker") {
        println!("cargo::rerun-if-changed={}", linker.display());
    }
    for (name, sysroot) in toolchain::installed() {
        if name == found.name {
            println!("cargo::rerun-if-changed={}/bin/rustc", sysroot.display());
        }
    }

    // SAFETY: a build script has one thread, and nothing else reads the environment meanwhile.
    unsafe {
        std::env::set_var("PATH", toolchain::search_path());
        // aya-build turns every line that cargo prints into a warning; its progress is none.
        // Warnings and errors of the compiler come another way and still show.
        std::env::set_var("CARGO_TERM_QUIET", "true");
        // Lets a stable compiler build `core`. For this call only: set for the whole build it
        // would switch other crates to features that are not stable.
        if !found.nightly {
            std::env::set_var("RUSTC_BOOTSTRAP", "1");
        }
    }
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../firewall-ebpf");
    let package = aya_build::Package { name: "firewall-ebpf", root_dir, ..Default::default() };
    // The name is of no use where there is no rustup: aya-build takes the compiler on the path.
    let name = found.name.as_deref().unwrap_or("default");
    if let Err(error) = aya_build::build_ebpf([package], aya_build::Toolchain::Custom(name)) {
        // The compiler's own messages went before.
        println!("cargo::error=the kernel programs did not build with {}", found.version);
        println!("cargo::warning={error:#}");
    }
}
