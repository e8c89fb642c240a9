//! The shipped policy `coding-agent`, with a name server and units.

use crate::{
    harness::{Cgroup, Kind, Resolver, Zone, require_names},
    support::{BAIDU, BAIDU_HK, FIREWALL, FREE, Run},
    world::{Tries, World, attempt},
};

/// Whether a shell reaches a TCP port, by name or address.
fn reach(name: &str, shell: &str, host: &str, port: u16) -> String {
    attempt(name, format!("{shell} -c ': </dev/tcp/{host}/{port}'"))
}

#[test]
fn a_coding_agent_reaches_its_service_and_nothing_else() {
    if !require_names() {
        return;
    }
    let world = World::with(&[FREE, BAIDU, BAIDU_HK]);
    let zone = Zone::default()
        .host("api.anthropic.com", &[FREE])
        .host("github.com", &[BAIDU])
        .host("collector.example", &[BAIDU_HK]);
    let _names = world.net.serve_names(Kind::Dnsmasq, &zone, &["10.200.0.1:53"]);
    let _service = world.net.listen_tcp(&["[::]:443", "[::]:80", "[::]:22"]);
    let resolver = Resolver::new(&["10.200.0.1"], "");
    // What the agent is, and what it starts, are different files.
    let (agent, tool) = (world.shell("agent"), world.shell("tool"));
    let (agent, tool) = (agent.display().to_string(), tool.display().to_string());

    // As `systemd-run --scope --unit=coding-agent firewall run …` makes it.
    let slice = Cgroup::slice();
    let unit = slice.child("coding-agent.scope");
    let run = |unit: Option<&Cgroup>, script: &str| {
        let mut firewall = world.net.client_command(FIREWALL);
        resolver.enter(&mut firewall);
        if let Some(unit) = unit {
            unit.enter(&mut firewall);
        }
        let run = Run::of(firewall, &["--policy", "coding-agent"]);
        let outcome = run.program(&["/bin/bash", "-c", script]);
        outcome.assert_status(0);
        Tries { outcome }
    };
    run(None, &reach("outside", &agent, "collector.example", 443)).assert(&["outside"], &[]);

    // Nobody asked for the name yet.
    let mut script = reach("by-address", &agent, FREE, 443);
    script += &reach("service", &agent, "api.anthropic.com", 443);
    script += &reach("service-at-another-port", &agent, "api.anthropic.com", 80);
    script += &reach("elsewhere", &agent, "collector.example", 443);
    script += &reach("tool-to-git-host", &tool, "github.com", 22);
    script += &reach("tool-elsewhere", &tool, "collector.example", 443);
    script += &attempt("child", format!("{agent} -c '{tool} -c \": </dev/tcp/{BAIDU_HK}/443\"'"));
    let tries = run(Some(&unit), &script);
    tries.assert(
        &["service", "tool-to-git-host"],
        &["by-address", "service-at-another-port", "elsewhere", "tool-elsewhere", "child"],
    );
    // What is asked for goes out, and is recorded.
    let asked = tries
        .outcome
        .events
        .iter()
        .find(|event| event["hook"] == "dns" && event["host"]["name"] == "collector.example");
    assert_eq!(asked.map(|event| &event["verdict"]), Some(&"allow".into()));
    let event = tries.outcome.denied(BAIDU_HK, 443, "tcp");
    assert_eq!((&event["policy"], &event["reason"]), (&"coding-agent".into(), &"default".into()));
    let cgroup = event["app"]["cgroup"].as_str();
    assert!(cgroup.is_some_and(|path| path.contains(".slice/coding-agent.scope/")), "{event}");
}
