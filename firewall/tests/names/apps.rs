//! Whose names they are.

use std::time::Duration;

use crate::{
    harness::require_names,
    support::{FREE, Outcome, client, own_program},
};

use super::world::{DENIED, World, assert_fails, assert_learned, assert_passes, assert_rule};

/// One app of several, each a copy of this program with a file of its own.
struct App {
    program: String,
    steps: std::path::PathBuf,
}

impl App {
    fn new(world: &World, name: &str) -> Self {
        let program = world.file(name, "");
        // A copy, not a link: an app is known by its file.
        std::fs::copy(own_program(), &program).expect("a copy of this program");
        Self { steps: format!("{program}.steps").into(), program }
    }

    /// A shell's words that run it with a script.
    fn words(&self, script: &str) -> String {
        let mut command = std::process::Command::new(&self.program);
        client::prepare(&mut command, script, &self.steps);
        let variables: Vec<String> = command
            .get_envs()
            .map(|(name, value)| {
                format!("{}='{}'", name.display(), value.unwrap_or_default().display())
            })
            .collect();
        format!("{} {} --exact {}", variables.join(" "), self.program, client::TEST)
    }

    /// What it said of its steps, beside the events of the whole run.
    fn outcome(&self, whole: &Outcome) -> Outcome {
        let text = std::fs::read_to_string(&self.steps).unwrap_or_default();
        whole.with_steps(client::read(&text))
    }
}

/// Two apps asked for different names and got the same address: each is judged by its own.
#[test]
fn each_app_is_judged_by_the_names_that_it_asked_for() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["bad.example"], "ports = [\"tcp/80\"]");
    let [good, bad, neither] = ["good", "bad", "neither"].map(|name| App::new(&world, name));
    let connect = format!("tcp {FREE}:80");
    // All three ask, or not, before any of them connects.
    let script = format!(
        "{} & {} & {} & wait",
        good.words(&format!("dns 10.200.0.1:53 good.example A\nsleep 1500\n{connect}")),
        bad.words(&format!("dns 10.200.0.1:53 bad.example A\nsleep 1500\n{connect}")),
        neither.words(&format!("sleep 1500\n{connect}")),
    );
    let outcome = world.start(&["--policy", &policy]).program(&["sh", "-c", &script]);
    outcome.assert_status(0);
    for app in [&good, &neither] {
        assert_passes(&app.outcome(&outcome), &connect);
    }
    assert_fails(&bad.outcome(&outcome), &connect, &DENIED);
    let event = outcome.denied(FREE, 80, "tcp");
    assert_rule(event, "bad.example");
    assert_learned(event, "dns", "unique");
    assert_eq!(event["app"]["exe"], bad.program, "{event}");
    let denied = outcome.events.iter().filter(|event| event["verdict"] == "deny");
    assert_eq!(denied.count(), 1, "{:#?}", outcome.events);
    assert_eq!(world.visits(FREE), 2);
}

/// What one process of an app asked for holds for its other processes, as curl's do.
#[test]
fn processes_of_one_app_share_their_names() {
    if !require_names() {
        return;
    }
    let world = World::new();
    let policy = world.deny(&["bad.example"], "ports = [\"tcp/80\"]");
    let app = App::new(&world, "app");
    let connect = format!("tcp {FREE}:80");
    let script =
        format!("{}; {}", app.words("dns 10.200.0.1:53 bad.example A"), app.words(&connect));
    let outcome = world.start(&["--policy", &policy]).program(&["sh", "-c", &script]);
    outcome.assert_status(0);
    assert_fails(&app.outcome(&outcome), &connect, &DENIED);
    assert!(outcome.took < Duration::from_secs(20));
    assert_eq!(world.visits(FREE), 0);
}
