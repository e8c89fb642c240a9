//! Where the server listens.

use std::{fs, os::unix::net::UnixListener, path::Path};

use firewall::api;

/// What binding says; the socket is gone with it.
fn bind(path: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    api::bind(path).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/api.sock");
    bind(&path).expect("the folder is made");
    assert!(path.exists(), "nobody answers there any more");
    bind(&path).expect("it makes room");

    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    let said = bind(&path).unwrap_err();
    assert!(said.contains("another process answers at") && said.contains("hint: "), "{said}");
    assert!(path.exists());
    drop(other);

    for text in ["", "of value"] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
        let said = bind(&path).unwrap_err();
        assert!(said.contains("is there and no socket") && said.contains("hint: "), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // What a link leads to is not the daemon's.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(bind(&link).unwrap_err().contains("no socket"));
    let long = folder.path().join("x".repeat(120));
    assert!(bind(&long).unwrap_err().contains("cannot listen at"));
}

#[test]
fn one_that_is_too_busy_to_answer_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let _busy = UnixListener::bind(&path).unwrap();
    let mut open = Vec::new();
    // Connections wait until there is no room for more.
    for _ in 0..10_000 {
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        if rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).is_err()
        {
            break;
        }
        open.push(socket);
    }
    assert!(bind(&path).unwrap_err().contains("another process answers"));
}
