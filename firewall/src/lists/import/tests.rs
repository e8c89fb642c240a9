use super::*;
use crate::intel::organisations::Organisations;
use crate::policy;
use crate::policy::source::{Content, Disk, Origin, Source};

/// The policy, behind what was left out; it is sound.
fn shown(imported: &Imported) -> String {
    let Imported { policy, rules, report: _, left_out } = imported;
    if *rules > 0 {
        let content = Content::Text(policy.as_str().into());
        let source = Source { origin: Origin::File("x.toml".into()), content };
        let (policies, findings) =
            policy::load(&[source], &Organisations::embedded().unwrap(), &Disk);
        assert_eq!(findings.render(false), "");
        assert_eq!(policies[0].rules.len(), *rules);
    }
    let left_out: Vec<_> = left_out
        .iter()
        .map(|(why, names)| format!("{}: {}\n", why.word(), names.join(", ")))
        .collect();
    format!("{}\n{policy}", left_out.concat())
}

#[test]
fn a_list_becomes_a_policy() {
    let text = "||hm.baidu.com^\n@@||ok.hm.baidu.com^\n||192.0.2.1^\nx##.ad\n";
    let imported = list(Format::Adblock, text, "Easy \"x\"\n.txt", "Easy \"x\"").unwrap();
    assert_eq!(imported.report.as_ref().map(|report| report.skipped()), Some(1));
    insta::assert_snapshot!(shown(&imported));
    let nothing = list(Format::Hosts, "# x\n", "x", "x").unwrap();
    assert_eq!((nothing.rules, nothing.policy.as_str()), (0, ""));
}

#[test]
fn rules_of_little_snitch() {
    let text = r#"{
 "name": "x",
 "denied-remote-domains": ["roku.com", "a b"],
 "rules": [
  {"action":"allow","process":"any","remote":"any","ports":"443, 8000-8999","protocol":"tcp"},
  {"action":"deny","process":"any","remote-domains":["b.example"],"notes":"About b\nmore"},
  {"action":"allow","process":"any","remote-hosts":"c.b.example","direction":"outgoing"},
  {"action":"deny","process":"any","remote-addresses":"192.0.2.0-192.0.2.255"},
  {"action":"deny","process":"/usr/bin/curl","remote-domains":"d.example"},
  {"action":"deny","process":"any","remote":"local-net"},
  {"action":"ask","process":"any"},
  {"action":"deny","process":"any","direction":"incoming"},
  {"action":"deny","process":"any","protocol":"47"},
  {"action":"deny","process":"any","disabled":true},
  {"action":"deny","process":"any","remote-domains":"=e.example"},
  7
 ]
}"#;
    insta::assert_snapshot!(shown(&list(Format::Lsrules, text, "x.lsrules", "x").unwrap()));
}

#[test]
fn rules_of_opensnitch() {
    let simple = |name: &str, more: &str, operand: &str, data: &str| {
        format!(
            r#"{{"created":"","updated":"","name":"{name}",{more},"duration":"always","operator":{{"type":"simple","operand":"{operand}","sensitive":false,"data":"{data}","list":[]}}}}"#
        )
    };
    let regexp = |name: &str, data: &str| {
        format!(
            r#"{{"name":"{name}","action":"deny","operator":{{"type":"regexp","operand":"dest.host","data":"{data}"}}}}"#
        )
    };
    let deny = r#""enabled":true,"precedence":false,"action":"deny""#;
    let both = r#"{"name":"both","enabled":true,"precedence":true,"action":"allow","operator":{"type":"list","operand":"list","data":"","list":[
        {"type":"simple","operand":"dest.host","data":"api.example"},
        {"type":"regexp","operand":"dest.port","data":"^(80|443)$"},
        {"type":"simple","operand":"protocol","data":"tcp"}]}}"#;
    let one = r#"{"name":"one-app","action":"deny","enabled":true,"operator":{"type":"list","operand":"list","list":[
        {"type":"simple","operand":"process.path","data":"/usr/bin/curl"},
        {"type":"simple","operand":"dest.host","data":"x.example"}]}}"#;
    let app = r#"{"name":"app","action":"deny","operator":{"type":"list","operand":"list","list":[
        {"type":"simple","operand":"process.path","data":"/usr/bin/curl\nx = 1"},
        {"type":"simple","operand":"user.id","data":"1000"},
        {"type":"network","operand":"dest.network","data":"192.0.2.0/24"}]}}"#;
    let two = r#"{"name":"two","action":"deny","operator":{"type":"list","operand":"list","list":[
        {"type":"simple","operand":"dest.host","data":"a.example"},
        {"type":"simple","operand":"dest.ip","data":"192.0.2.1"}]}}"#;
    let files: Vec<(String, String)> = [
        simple("000-host", deny, "dest.host", "Tracker.example"),
        simple("000-host!", deny, "dest.ip", "192.0.2.7"),
        simple("allow", r#""enabled":true,"precedence":false,"action":"allow""#, "true", ""),
        simple("off", r#""enabled":false,"action":"deny""#, "dest.host", "x.example"),
        simple("port", deny, "dest.port", "53"),
        simple("lan", deny, "dest.network", "LAN"),
        simple("command", deny, "process.command", "curl x"),
        simple("iface", deny, "iface.out", "eth0"),
        regexp("tree", r"^(|.*\\.)ads\\.example$"),
        regexp("under", r"^.*\\.ads2\\.example$"),
        regexp("any-dot", r"^ads.example$"),
        regexp("number", r"^ads[0-9]+\\.example$"),
        r#"{"name":"lists","action":"deny","operator":{"type":"lists","operand":"lists.domains","data":"/etc/x"}}"#.to_owned(),
        both.to_owned(),
        app.to_owned(),
        one.to_owned(),
        two.to_owned(),
        "{".to_owned(),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, text)| (format!("{index}.json"), text))
    .collect();
    insta::assert_snapshot!(shown(&opensnitch(&files, "rules", "rules")));
}
