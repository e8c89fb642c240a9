//! Servers of lists that hang, drip, or send without end.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::{
    harness::wait_until,
    server::{Page, Server},
    support::LIMIT,
    world::{By, Held, World},
};

/// The most that the daemon may have while it reads what has no end: what a list may have, twice, beside its own.
const MEMORY: u64 = 512 << 20;

/// Lists by their names, with what becomes of each.
const LISTS: [(&str, &str); 4] = [
    ("endless", "it is larger than 64 MiB"),
    ("bomb", "it is larger than 64 MiB"),
    ("hangs", "it breaks off"),
    ("good", ""),
];

pub fn servers(size: u64) -> Option<Held> {
    let mut world = World::without_daemon(By::Names, "");
    let server = world.host.net.in_client(Server::new);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..size * 80 {
        bomb.write_all(&vec![b'a'; 1 << 20]).unwrap();
    }
    let bomb = Page::new(bomb.finish().unwrap()).header("Content-Encoding", "gzip");
    server.put("/bomb", bomb);
    server.put("/endless", Page::new("a.example.org\n".repeat(4096)).endless());
    server.put("/hangs", Page::new("a.example.org\n").stall());
    server.put("/good", Page::new("listed.example.org\n"));
    let mut text = String::new();
    for (name, _) in LISTS {
        text += &format!(
            "[policy]\nname = \"{name}\"\n[[rule]]\nname = \"listed\"\naction = \"drop\"\n\
             to = {{ lists = [\"{name}\"] }}\n[list.{name}]\nurl = \"{}\"\n",
            server.url(&format!("/{name}"))
        );
        world.host.set(&format!("policies.d/{name}.toml"), &text);
        text.clear();
    }
    let mut command = world.host.command("daemon");
    command.env("SSL_CERT_FILE", server.root());
    world.host.start_by(command);
    world.begin();
    // Nobody's list waits for what hangs.
    let good = |world: &World| {
        let status = world.host.status();
        let lists = status["lists"].as_array().unwrap().clone();
        let hangs =
            lists.iter().any(|list| list["name"] == "hangs" && list.get("failure").is_none());
        let there = lists.iter().any(|list| list["name"] == "good" && list["entries"] == 1);
        (there, hangs)
    };
    let there = wait_until(LIMIT / 6, || good(&world).0);
    assert!(there, "{:#?}\n{}", world.host.status()["lists"], world.host.said());
    assert!(good(&world).1, "it is in force only when the last one has come or failed");
    let mut slowest = Duration::ZERO;
    let mut most = 0;
    let begun = Instant::now();
    let mut ended = Vec::new();
    // In short, nobody waits until a server that hangs is given up.
    let wanted = if size > 1 { LISTS.len() } else { LISTS.len() - 1 };
    while begun.elapsed() < LIMIT && ended.len() < wanted {
        world.during(50);
        let asked = Instant::now();
        let status = world.host.status();
        slowest = slowest.max(asked.elapsed());
        most = most.max(status["memory_bytes"].as_u64().unwrap());
        ended = status["lists"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|list| is_over(list))
            .cloned()
            .collect();
    }
    assert!(ended.len() >= wanted, "{ended:#?}\n{}", world.host.said());
    assert!(most < MEMORY, "{most} bytes");
    // Where it waits for a server, nobody else waits.
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
    let state = || world.host.status()["state"] == "degraded";
    assert!(wait_until(LIMIT, state));
    world.during(200);
    let did = "list servers that hang, send without end, and compress".to_owned();
    let shown = format!(
        "lists[].failure of {}, {} KiB at most, the slowest status after {} ms",
        ended.len() - 1,
        most >> 10,
        slowest.as_millis()
    );
    Some(world.end(did, shown))
}

/// Whether what becomes of a list is there.
fn is_over(list: &Value) -> bool {
    let (_, why) = LISTS.iter().find(|(name, _)| list["name"] == *name).unwrap();
    match *why {
        "" => list["entries"] == 1,
        why => list["failure"].as_str().is_some_and(|failure| failure.contains(why)),
    }
}
