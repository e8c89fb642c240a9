//! The initramfs: a file system of its own for a guest.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{PROGRAMS, guest, harness, support};

/// Modules of the kernel that the checks need, each behind those that it needs itself: wires between
/// namespaces, captures of what arrives, and what destroys sockets.
const MODULES: [&str; 5] = ["veth", "af_packet", "inet_diag", "tcp_diag", "udp_diag"];

/// The image of the kernel.
pub fn linux(kernel: &Path) -> PathBuf {
    find(&kernel.join("boot"), &|name| name.starts_with("vmlinuz-")).expect("a kernel in boot/")
}

/// Makes the initramfs for an unpacked kernel in `folder`.
pub fn build(folder: &Path, kernel: &Path) -> PathBuf {
    let root = folder.join("root");
    for name in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("a folder");
    }
    for (name, text) in guest::FILES {
        fs::write(root.join(name), text).expect("a file");
    }
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).expect("our file");
    for (number, name) in MODULES.into_iter().enumerate() {
        // What is built in has no file.
        if let Some(module) = find(kernel, &|file| file.split(".ko").next() == Some(name)) {
            copy_module(&module, &root.join(format!("modules/{number}.ko")));
        }
    }
    for program in PROGRAMS {
        let file = harness::program(program).expect("it was looked for");
        let to = root.join("bin").join(program);
        fs::copy(&file, &to).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        copy_libraries(&file, &root);
    }
    // Where they are here, for the test has it from its build where the binary is.
    for program in [support::FIREWALL, &support::own_program()] {
        let to = below(&root, Path::new(program));
        run(Command::new("strip").arg("-o").arg(&to).arg(program));
        copy_libraries(Path::new(program), &root);
    }
    symlink(support::own_program(), root.join("bin/checks")).expect("a link");
    pack(&root, &folder.join("initramfs"))
}

fn copy_module(from: &Path, to: &Path) {
    let file = File::create(to).expect("a file");
    if from.extension().is_some_and(|extension| extension == "xz") {
        run(Command::new("xz").args(["--decompress", "--stdout"]).arg(from).stdout(file));
    } else {
        fs::copy(from, to).expect("a copy");
    }
}

/// Copies what a program is linked to; nothing of one that is linked to nothing.
fn copy_libraries(program: &Path, root: &Path) {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout);
    // Lines are `NAME => FILE (ADDRESS)`, and `FILE (ADDRESS)` of what loads the others.
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = below(root, Path::new(library));
        fs::copy(library, to).unwrap_or_else(|error| panic!("{library}: {error}"));
    }
}

/// The same path in another root, with the folders above it made.
fn below(root: &Path, path: &Path) -> PathBuf {
    let to = root.join(path.strip_prefix("/").expect("a whole path"));
    fs::create_dir_all(to.parent().expect("a folder")).expect("folders");
    to
}

fn pack(root: &Path, to: &Path) -> PathBuf {
    let mut names = Vec::new();
    list(root, Path::new(""), &mut names);
    let mut child = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(File::create(to).expect("a file"))
        .spawn()
        .expect("cpio");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(names.join("\n").as_bytes()).expect("cpio reads names");
    drop(stdin);
    assert!(child.wait().expect("cpio ends").success(), "cpio failed");
    to.to_owned()
}

/// Names below `root`, each folder before what is in it.
fn list(root: &Path, folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder").flatten() {
        let name = folder.join(entry.file_name());
        names.push(name.to_str().expect("UTF-8").to_owned());
        if entry.file_type().expect("a type").is_dir() {
            list(root, &name, names);
        }
    }
}

/// The first file below a folder whose name is as wanted.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        if entry.file_type().ok()?.is_dir() {
            return find(&entry.path(), wanted);
        }
        entry.file_name().to_str().is_some_and(wanted).then(|| entry.path())
    })
}

#[track_caller]
fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
