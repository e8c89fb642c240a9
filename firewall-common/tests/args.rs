//! The script in the arguments of an interpreter: what real ones take for it, and what is no script.
#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use firewall_common::parse::args::{Args, MAX_ARGS, interpreter};
use proptest::{collection::vec, prelude::*, sample::select};

fn kind(name: &str) -> u32 {
    let mut padded = [0; 16];
    let len = name.len().min(16);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    interpreter(&padded)
}

/// Where the script is in the bytes.
fn place(name: &str, bytes: &[u8]) -> Option<(usize, usize)> {
    let mut args = Args::new(kind(name));
    for (index, byte) in (0..MAX_ARGS).zip(bytes) {
        args.step(index, *byte);
    }
    (args.len > 0).then_some((args.start as usize, args.len as usize))
}

fn script(name: &str, args: &[&str]) -> Option<String> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    for arg in args {
        bytes.extend(arg.as_bytes());
        bytes.push(0);
    }
    place(name, &bytes)
        .map(|(start, len)| String::from_utf8(bytes[start..start + len].to_vec()).unwrap())
}

/// Command lines, `S` is the script of those that have one.
fn check(name: &str, with: &[&str], without: &[&str]) {
    let split = |line: &str| script(name, &line.split(' ').collect::<Vec<_>>());
    for line in with {
        assert_eq!(split(line).as_deref(), Some("S"), "{name} {line}");
    }
    for line in without {
        assert_eq!(split(line), None, "{name} {line}");
    }
}

#[test]
fn an_interpreter_is_known_without_its_version() {
    for (name, same) in [
        ("python", "python3.12"),
        ("python", "python3.13t"),
        ("python", "pypy3.10-c"),
        ("node", "nodejs"),
        ("node", "node-22"),
        ("perl", "perl5.38-x86_64-linux-gnu"),
        ("php", "php8.2"),
        ("sh", "dash"),
        ("zsh", "zsh-5.9"),
        ("zsh", "ksh93"),
        ("lua", "lua5.4"),
        ("lua", "luajit-2.1.0-beta3"),
        ("tclsh", "wish8.6"),
        ("R", "Rscript"),
        ("gjs", "gjs-console"),
    ] {
        assert_ne!(kind(name), 0, "{name}");
        assert_eq!(kind(name), kind(same), "{same}");
    }
    for none in ["", "curl", "firefox", "Python", "pythonx", "node-red", "lua-language-server", "3"]
    {
        assert_eq!(kind(none), 0, "{none}");
    }
    assert_eq!(script("curl", &["S"]), None);
}

#[test]
fn python() {
    check(
        "python3.12",
        &["S", "S -c x", "-u S", "-Wignore S", "-W ignore S", "-X dev -uBW error S -m x", "-- S"],
        &["-c x S", "-m x S", "-Im x S", "-Ic x S", "-", "- S", "", "-W", "-u", "--"],
    );
    check("python3", &["--check-hash-based-pycs always S"], &["--check-hash-based-pycs S"]);
    check("pypy3", &["--jit off S"], &[]);
    assert_eq!(script("python3", &["--", "-c"]).as_deref(), Some("-c"));
    assert_eq!(script("python3", &["", "S"]), None);
    assert_eq!(script("python3", &["a b/ä.py"]).as_deref(), Some("a b/ä.py"));
}

#[test]
fn node() {
    check(
        "node",
        &[
            "S",
            "-r x S",
            "--require x S",
            "--require=x S",
            "--max-old-space-size=9 S",
            "--inspect S",
            "-C x --import x S --eval y",
        ],
        &["-e x S", "-pe x", "-p x S", "--eval x S", "--eval=x S", "--print x", "-r S", "-"],
    );
}

#[test]
fn perl() {
    check(
        "perl",
        &["S", "-w S", "-I x S", "-Ix S", "-Mstrict S", "-MCarp=cluck -T S", "-i.e S", "-l012 S"],
        &["-e x S", "-lne x S", "-wE x S", "-pi -e x S", "-0777ne x S", "-V", "-"],
    );
}

#[test]
fn ruby_php_lua() {
    check(
        "ruby3.2",
        &["S", "-w S", "-r x S", "-rx S", "-I x -Ku S", "-W0 S", "--encoding utf-8 S"],
        &["-e x S", "-ne x S", "-r S"],
    );
    check(
        "php8.2",
        &["S", "-d x=y S", "-n S", "-f S", "-fS", "-nf S x", "--file S", "--file=S", "-c x S"],
        &["-r x S", "-S localhost:80 S", "--run x S", "-a", "-d S", "-f"],
    );
    check("lua5.4", &["S", "-e x S", "-l x -i S", "-E S"], &["-", "-e x", "-i"]);
    check("luajit", &["-j off S", "-joff S", "-O3 S", "-O S"], &[]);
}

#[test]
fn shells() {
    check(
        "bash",
        &[
            "S",
            "-x S",
            "-eo pipefail S",
            "-eou pipefail S",
            "-oO pipefail extglob S",
            "+o posix S",
            "+x S",
            "--rcfile x S",
            "--norc S",
            "- S",
            "-- S",
            "-l S -c",
        ],
        &["-c x S", "-lc x S", "-s S", "-o S", "-", "--", "+c x"],
    );
    check("sh", &["S", "-e S", "-o nounset S", "-O S"], &["-c x S", "-ec x", "-s"]);
    check("zsh", &["-oextendedglob S", "-o extendedglob S", "-f S"], &["-fc x"]);
    check("fish", &["-C x S", "--init-command=x S"], &["-c x S", "--command=x S", "-"]);
    assert_eq!(script("python3", &["+S"]).as_deref(), Some("+S"));
}

#[test]
fn others() {
    check(
        "R",
        &["--no-echo --no-restore --file=S --args x", "-f S"],
        &["--no-save -e x", "--file="],
    );
    check("Rscript", &["S", "--vanilla S x"], &["-e x S"]);
    check("tclsh8.6", &["S x", "-encoding utf-8 S"], &["-encoding S", "-encoding"]);
    check("gjs-console", &["S", "-m S", "-I x S"], &["-c x S", "--command=x S"]);
}

/// A script that was cut off names another file.
#[test]
fn half_a_script_is_none() {
    let args = |len| [b"sh\0", &vec![b'x'; len][..], b"\0"].concat();
    let fits = MAX_ARGS as usize - 4;
    assert_eq!(place("sh", &args(fits)), Some((3, fits)));
    assert_eq!(place("sh", &args(fits + 1)), None);
    assert_eq!(place("sh", b"sh\0S"), None);
}

/// What the interpreters of this machine make of the same arguments.
#[test]
fn real_interpreters_agree() {
    let dir = tempfile::tempdir().unwrap();
    let program = |text: &str| {
        let path = dir.path().join(format!("script{}", text.len()));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let shell = program("echo ran the script\n");
    let python = program("print('ran the script')\n");
    let perl = program("print \"ran the script\\n\";   ");
    let node = program("console.log('ran the script')");
    let tcl = program("puts {ran the script}\n\n\n\n");
    let mut seen = 0;
    for (name, path, code, script_path, lines) in [
        (
            "bash",
            "/usr/bin/bash",
            "true",
            &shell,
            &[
                "S",
                "-e S",
                "-eo pipefail S",
                "-eou pipefail S",
                "+x S",
                "+o posix S",
                "- S",
                "-- S",
                "--norc S",
                "--rcfile x S",
                "-O extglob S",
                "-c CODE S",
                "-lc CODE S",
                "-s S",
                "-",
            ][..],
        ),
        (
            "dash",
            "/usr/bin/dash",
            "true",
            &shell,
            &["S", "-e S", "-o nounset S", "-eo nounset S", "- S", "-- S", "-ec CODE S", "-s S"],
        ),
        (
            "python3",
            "/usr/bin/python3",
            "0",
            &python,
            &[
                "S",
                "-u S",
                "-W ignore S",
                "-Wignore S",
                "-uW ignore S",
                "-X dev S",
                "-- S",
                "--check-hash-based-pycs always S",
                "-c CODE S",
                "-Ic CODE S",
                "-m this S",
                "-",
            ],
        ),
        (
            "perl",
            "/usr/bin/perl",
            "0",
            &perl,
            &[
                "S",
                "-w S",
                "-I x S",
                "-Ix S",
                "-Mstrict S",
                "-l012 S",
                "-CSD S",
                "-- S",
                "-e CODE S",
                "-we CODE S",
                "-0777e CODE S",
                "-",
            ],
        ),
        (
            "node",
            "/usr/bin/node",
            "0",
            &node,
            &[
                "S",
                "-r fs S",
                "--require fs S",
                "--require=fs S",
                "--no-warnings S",
                "-C x S",
                "--title x S",
                "-- S",
                "-e CODE S",
                "-p CODE S",
                "-pe CODE S",
                "--eval=CODE S",
                "-",
            ],
        ),
        ("tclsh", "/usr/bin/tclsh", "0", &tcl, &["S", "-encoding utf-8 S"]),
    ] {
        if !Path::new(path).exists() {
            println!("skipped: {name} is not there");
            continue;
        }
        for line in lines {
            let args: Vec<_> = line
                .split(' ')
                .map(|arg| match arg {
                    "S" => script_path,
                    _ => arg,
                })
                .map(|arg| arg.replace("CODE", code))
                .collect();
            let args: Vec<_> = args.iter().map(String::as_str).collect();
            let output = Command::new(path)
                .args(&args)
                .current_dir(&dir)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let ran = String::from_utf8_lossy(&output.stdout).contains("ran the script");
            let want = ran.then_some(script_path.as_str());
            assert_eq!(script(name, &args).as_deref(), want, "{name} {line}: {output:?}");
            seen += 1;
        }
    }
    assert!(seen > 0, "no interpreter is there");
}

const NAMES: &[&str] = &[
    "python3", "node", "perl", "ruby", "php", "sh", "bash", "zsh", "fish", "lua", "R", "tclsh",
    "gjs", "curl",
];

/// Arguments that mean something, and bytes that do not.
fn arg() -> impl Strategy<Value = Vec<u8>> {
    let known = select(
        &[
            "",
            "-",
            "--",
            "+",
            "-c",
            "-e",
            "-m",
            "-o",
            "-r",
            "-W",
            "-f",
            "-lo",
            "--eval",
            "--file=",
            "--require",
            "--file",
            "=",
            "-I",
            "S",
            "/a b",
        ][..],
    );
    prop_oneof![
        4 => known.prop_map(|arg| arg.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// It is one of the arguments, or the end of one, and nothing behind it changes that.
    #[test]
    fn a_script_is_an_argument(name in select(NAMES), args in vec(arg(), 0..12), cut in 0..600usize) {
        let mut bytes = args.iter().flat_map(|arg| [arg, &[0][..]].concat()).collect::<Vec<_>>();
        let found = place(name, &bytes);
        if let Some((start, len)) = found {
            prop_assert!(start + len < bytes.len().min(MAX_ARGS as usize));
            prop_assert!(bytes[start..start + len].iter().all(|byte| *byte != 0));
            prop_assert_eq!(bytes[start + len], 0);
            prop_assert!(start > 0);
            prop_assert_ne!(name, "curl");
        }
        bytes.truncate(cut);
        if let Some(earlier) = place(name, &bytes) {
            prop_assert_eq!(Some(earlier), found);
        }
    }

    /// Options that stand alone change nothing, and values are not looked at.
    #[test]
    fn options_before_a_script(
        line in vec(select(&["-u", "-B", "-Wx", "-W x", "-X -c", "-OW -m"][..]), 0..6),
        last in select(&["", "-- "][..]),
        behind in "[ -~]{0,20}",
    ) {
        let line = line.iter().map(|option| format!("{option} ")).collect::<String>() + last + "S";
        let mut args: Vec<_> = line.split(' ').collect();
        args.push(&behind);
        prop_assert_eq!(script("python3", &args), Some("S".to_owned()));
    }
}
