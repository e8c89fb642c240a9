//! `firewall report -- CMD`: a run that stops nothing, and what it comes to.

use serde_json::Value;

use crate::{
    harness::{Net, require_kernel},
    support::{BAIDU, FIREWALL, FREE, own_program},
};

#[test]
fn of_one_command() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[BAIDU, FREE]);
    let web = net.serve_http(&["[::]:80"]);
    let state = tempfile::tempdir().expect("a folder");
    let script = format!(
        "curl -s -o {}/got --max-time 20 --noproxy '*' http://{BAIDU}/; exit 7",
        state.path().display()
    );
    let mut told = Vec::new();
    for _ in 0..2 {
        let output = net
            .client_command(FIREWALL)
            .args(["report", "--json", "--config", "/dev/null", "--state"])
            .arg(state.path())
            .arg("--policies")
            .arg(state.path())
            .args(["--", "sh", "-c", &script])
            .output()
            .expect("the firewall");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        told.push(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"));
    }
    assert_eq!(web.contacts().len(), 2, "nothing is stopped");
    for report in &told {
        let apps = report["apps"].as_array().expect("apps");
        let curl = apps.iter().find(|app| app["app"]["name"] == "curl").expect("curl");
        assert_eq!(curl["names"][0]["name"], BAIDU);
        assert_eq!(curl["countries"][0]["name"], "CN");
        let would = curl["would"].as_array().expect("would");
        let named = |name: &str| would.iter().any(|one| one["policy"] == name);
        assert!(named("cn-jurisdiction") && !named("ru-jurisdiction"), "{would:?}");
        assert_eq!(
            (&curl["stopped"], &curl["new"]),
            (&Value::Array(Vec::new()), &Value::Bool(false))
        );
    }
    assert!(told[0].get("last_report").is_none() && told[1]["last_report"].is_string());
}

#[test]
fn of_one_that_cannot_be_run() {
    if !require_kernel() {
        return;
    }
    let net = Net::new(&[FREE]);
    let state = tempfile::tempdir().expect("a folder");
    let status = |words: &[&str]| {
        let output = net
            .client_command(FIREWALL)
            .args(["report", "--config", "/dev/null", "--state"])
            .arg(state.path())
            .args(words)
            .output()
            .expect("the firewall");
        (output.status.code(), output.stdout.is_empty())
    };
    assert_eq!(status(&["--", "/nonexistent/program"]), (Some(127), true));
    assert_eq!(status(&["--html", "/", "--", &own_program()]), (Some(125), true));
}
