//! Builds the kernel programs, so that the object can be embedded in the binary.
fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed={}/../firewall-common/src", env!("CARGO_MANIFEST_DIR"));
    // SAFETY: a build script has one thread, and nothing else reads the environment meanwhile.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../firewall-ebpf");
    let package = aya_build::Package { name: "firewall-ebpf", root_dir, ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom("debian"))
}
