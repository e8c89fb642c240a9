//! Fetching from a server on the loopback, in this process.

#[path = "../../tests/update/server.rs"]
mod server;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use super::fetch::{Client, Received};
use super::*;
use server::{Page, Server};

struct World {
    server: Server,
    store: Store,
    refresher: Refresher,
    _state: TempDir,
}

impl World {
    fn new(limits: Limits) -> Self {
        let server = Server::new();
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        store.prepare().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(server.root()).unwrap()).unwrap();
        let client = Client::trusting(roots, limits).unwrap();
        let refresher = Refresher::with(store.clone(), client);
        Self { server, store, refresher, _state: state }
    }

    fn remote(&self, path: &str) -> Arc<Remote> {
        let url = self.server.url(path).parse().unwrap();
        Arc::new(Remote { url, format: None, sha256: None, refresh: Remote::REFRESH })
    }

    fn refresh(&mut self, remotes: &[Arc<Remote>], progress: Progress) -> Vec<Outcome> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.refresher.refresh(remotes, false, &progress))
    }

    fn reason(&mut self, remote: &Arc<Remote>) -> &'static str {
        match &self.refresh(&[Arc::clone(remote)], Arc::new(|_, _| {}))[..] {
            [Outcome::Failed(failure, _)] => failure.reason.word(),
            [Outcome::Updated { .. }] => "updated",
            [Outcome::NotModified(_)] => "not-modified",
            other => panic!("{other:?}"),
        }
    }
}

fn names(number: usize) -> String {
    (0..number).map(|n| format!("n{n}.example\n")).collect()
}

#[test]
fn a_list_is_due_at_once_then_after_its_interval_or_sooner_after_failures() {
    let mut world = World::new(Limits::default());
    let remote = world.remote("/list");
    let begin = Timestamp::now();
    let due = |world: &World| {
        let due = world.refresher.due(&remote, begin);
        due.duration_since(begin).as_secs()
    };
    assert_eq!(due(&world), 0);
    world.server.put("/list", Page::new(names(4)));
    assert_eq!(world.reason(&remote), "updated");
    let soon = due(&world);
    assert!((77_000..=86_400 + 60).contains(&soon), "{soon}");
    // A copy that is gone or damaged is missed at once.
    let path = std::fs::read_dir(world.store.folder()).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|e| e == "list")).unwrap();
    let copy = std::fs::read(&path).unwrap();
    for bad in [None, Some("{}\n")] {
        match bad {
            Some(bad) => std::fs::write(&path, bad).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert_eq!(due(&world), 0, "{bad:?}");
    }
    std::fs::write(&path, copy).unwrap();

    world.server.put("/list", Page::new("").status("503 Service Unavailable"));
    for (failures, wait) in [(1, 60), (2, 120), (3, 240)] {
        assert_eq!(world.reason(&remote), "status");
        let soon = due(&world);
        assert!((wait * 9 / 10 - 1..=wait + 60).contains(&soon), "{failures}: {soon}");
    }
    // What cannot be written down is remembered.
    std::fs::remove_dir_all(world.store.folder()).unwrap();
    assert!(due(&world) > 200);
    let (store, client) =
        (world.store.clone(), Client::trusting(RootCertStore::empty(), Limits::default()));
    assert_eq!(Refresher::with(store, client.unwrap()).due(&remote, begin), begin);
}

#[test]
fn a_few_lists_are_fetched_at_once_and_each_tells_how_far_it_is() {
    let mut world = World::new(Limits::default());
    let remotes: Vec<_> = (1..=9)
        .map(|number| {
            let path = format!("/{number}");
            let page = Page::new(names(number)).meet(4);
            world.server.put(&path, page);
            world.remote(&path)
        })
        .collect();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let progress: Progress = Arc::new(move |index, received: Option<Received>| {
        telling
            .lock()
            .unwrap()
            .push((index, received.map(|received| (received.bytes, received.of))));
    });
    let outcomes = world.refresh(&remotes, progress);
    let entries = outcomes.iter().map(|outcome| match outcome {
        Outcome::Updated { head, before: None } => head.entries,
        other => panic!("{other:?}"),
    });
    assert_eq!(entries.collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert!(world.server.most() >= 4);
    let told = told.lock().unwrap();
    let mut at_once = HashSet::new();
    for (index, received) in told.iter() {
        match received {
            Some(_) => at_once.insert(index),
            None => at_once.remove(index),
        };
        assert!(at_once.len() <= 4, "{told:?}");
    }
    for (index, number) in (1..=9).enumerate() {
        let length = names(number).len() as u64;
        let of_this: Vec<_> = told.iter().filter(|(i, _)| *i == index).map(|(_, r)| *r).collect();
        assert_eq!(of_this[of_this.len() - 2..], [Some((length, Some(length))), None]);
    }
}

#[test]
fn each_time_out_ends_a_download_of_its_kind() {
    let short = Duration::from_millis(300);
    let long = Duration::from_secs(60);
    let limits = Limits { connect: long, idle: long, total: long, ..Limits::default() };
    let slow = Page::new(names(1_000)).drip(Duration::from_millis(20));
    let stalled = Page::new(names(10)).stall();
    for (limits, page, says) in [
        (Limits { idle: short * 10, ..limits }, &stalled, "nothing more comes"),
        (Limits { total: short, ..limits }, &stalled, "it takes longer than"),
        (Limits { total: short, ..limits }, &slow, "it takes longer than"),
    ] {
        let mut world = World::new(limits);
        let remote = world.remote("/list");
        world.server.put("/list", page.clone());
        let begin = Instant::now();
        assert_eq!(world.reason(&remote), "timeout", "{says}");
        assert!(begin.elapsed() < long / 2);
        let failure = world.store.attempts(&remote, Timestamp::now()).failure.unwrap();
        assert!(failure.message.contains(says), "{failure:?}");
    }
    // A server that accepts and never speaks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(Limits { connect: short, ..limits });
    let url = format!("https://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let remote = Arc::new(Remote { url, ..(*world.remote("/")).clone() });
    assert_eq!(world.reason(&remote), "timeout");
    let failure = world.store.attempts(&remote, Timestamp::now()).failure.unwrap();
    assert!(failure.message.contains("there is no connection"), "{failure:?}");
}
