//! No room for what is kept of sockets and listeners, and no memory to read in.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use firewall_common::layout::{Counter, MAX_LISTENERS};

use crate::{
    crowd::Crowd,
    harness::{CLIENT_V4, skip},
    load::{DENIED, OPEN, TCP},
    maps::take_scratch,
    world::{By, Held, SINK, STEP_NAMES, World, each},
};

/// The first port of the crowd's listeners.
const FROM: u16 = 20_000;
/// Listeners that somebody calls.
const CALLED: u16 = 400;

/// Who was called before the daemon was there is found by the listeners of then: of those beyond the map's
/// size, answers are judged as the app's own.
pub fn listeners(size: u64) -> Option<Held> {
    let mut world = World::without_daemon(By::Names, "");
    // The call to each of them is from outside, and none may be called by the app.
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    assert_eq!(crowd.does(&format!("listen {size} {FROM}")).0, size);
    let mut calls: Vec<TcpStream> = world.host.net.in_server(|| {
        let step = (size / u64::from(CALLED)) as usize;
        let ports = (FROM..).take(size as usize).step_by(step);
        ports.map(|port| TcpStream::connect((CLIENT_V4, port)).unwrap()).collect()
    });
    let (accepted, _) = crowd.does(&format!("accept {size}"));
    assert_eq!(accepted, calls.len() as u64);
    world.host.start();
    world.begin();
    let missing = world.counter(Counter::NoListener);
    assert!(missing >= size - u64::from(MAX_LISTENERS), "{missing}");
    crowd.does("greet");
    world.during(200);
    let mut greeted = 0;
    for call in &mut calls {
        call.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        greeted += u64::from(call.read(&mut [0; 16]).is_ok_and(|read| read > 0));
    }
    // Which are kept is not said, but how many can be.
    let most = accepted * u64::from(MAX_LISTENERS) / size;
    assert!(greeted > 0 && greeted <= most + most / 5, "{greeted} of {accepted} were answered");
    world.tried(accepted - greeted, greeted, greeted);
    let did = format!("{size} listeners, open before the daemon");
    Some(world.end(did, format!("no-listener {missing}")))
}

/// The kernel lets a socket have only so much memory beside its buffers.
pub fn no_memory(size: u64) -> Option<Held> {
    const SETTING: &str = "core/optmem_max";
    // Of the load, what is allowed would not pass.
    let mut world = World::without_daemon(By::Names, "");
    world.host.start();
    let is_there = world.host.net.in_client(|| Path::new("/proc/sys/net").join(SETTING).exists());
    if !is_there {
        skip(
            "this kernel has one `optmem_max` for the whole machine (Linux 6.8 has one for each network)",
        );
        return None;
    }
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    let before = world.counter(Counter::NoState);
    let mut app = world.host.app();
    app.does(&format!("open kept tcp {}", each(OPEN, TCP)[0]));
    world.host.net.client.sysctl(&[(SETTING, "64")]);
    let mut denied = 0;
    for to in each(DENIED, TCP) {
        let (sent, refused) = crowd.does(&format!("sendto {size} {to}"));
        assert_eq!((sent, refused), (0, size), "{to}");
        denied += refused;
    }
    for to in each(DENIED, TCP) {
        world.denied(&mut app, &format!("tcp {to}"));
    }
    world.arrived(SINK);
    // What is allowed passes as far as its call, and not as a packet.
    let (sent, _) = crowd.does(&format!("sendto {size} {}", each(OPEN, SINK)[0]));
    assert_eq!(world.arrived(SINK), 0, "packets without a state");
    world.allowed(&mut app, "say kept");
    let missing = world.counter(Counter::NoState) - before;
    assert!(missing >= sent, "{missing}");
    world.host.net.client.sysctl(&[(SETTING, "131072")]);
    world.tried(denied + sent, 0, 0);
    world.begin();
    world.during(200);
    let did = format!("{size} sockets each that may have no memory for a state");
    Some(world.end(did, format!("no-state {missing}")))
}

/// All memory that programs read messages in is taken.
pub fn no_scratch(size: u64) -> Option<Held> {
    let mut world = World::without_daemon(By::Names, "");
    world.host.start();
    let mut crowd = Crowd::new(&world.host, &world.host.cgroup);
    let mut app = world.host.app();
    let to = |ip: &str| -> SocketAddr { SocketAddr::new(ip.parse().unwrap(), TCP) };
    let name = format!("dns 10.200.0.1:53 {} A", STEP_NAMES[0]);
    world.allowed(&mut app, &name);
    let before = world.counter(Counter::NoScratch);
    world.arrived(53);
    take_scratch(&world, true);
    for ip in DENIED {
        let (sent, refused) = crowd.does(&format!("sendto {size} {}", to(ip)));
        assert_eq!((sent, refused), (0, size), "{ip}");
        world.tried(refused, 0, 0);
        world.denied(&mut app, &format!("tcp {}", to(ip)));
    }
    // A question that cannot be read is not let out, and nothing waits for it.
    assert_ne!(app.step(&name), 0);
    let (asked, _) = crowd.does(&format!("questions {size} 10.200.0.1:53"));
    assert_eq!(world.arrived(53), 0, "questions that nobody has read");
    world.tried(asked, 0, 0);
    let missing = world.counter(Counter::NoScratch) - before;
    assert!(missing > 0, "all have found memory");
    take_scratch(&world, false);
    world.allowed(&mut app, &name);
    world.begin();
    world.during(200);
    let did = format!("no memory to read in, {size} questions");
    Some(world.end(did, format!("no-scratch {missing}")))
}
