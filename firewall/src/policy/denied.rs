//! The names that policies deny, as far as they say them in full.

use std::{collections::HashSet, sync::Arc};

use super::{Action, Destinations, Policy, Scope, evidence::by_name};

/// Names that rules drop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedNames {
    /// Each once: those of rules before those of lists, in the order in which rules are tried.
    pub names: Vec<String>,
    /// How many there was no room for.
    pub left_out: usize,
}

/// The names of entries `=x` and `x` of rules that drop, whether they are enforced or observed, at
/// most `most`. What is under a name is not known from here, and what a rule or a list takes out again
/// is none of them.
///
/// Rules come first, because they were written one by one. A list follows if all of it has room: a
/// part would be any part.
pub fn denied_names(policies: &[Policy], most: usize) -> DeniedNames {
    let mut denied = DeniedNames::default();
    let mut known = HashSet::new();
    let drops = || {
        let rules = policies.iter().flat_map(|policy| &policy.rules);
        rules.filter(|rule| rule.action == Action::Drop).filter_map(|rule| rule.to.as_ref())
    };
    for to in drops() {
        for domain in &to.domains {
            if domain.scope == Scope::Below || is_excepted(to, &domain.name) {
                continue;
            }
            if known.contains(&domain.name) {
                continue;
            }
            if denied.names.len() < most {
                known.insert(domain.name.clone());
                denied.names.push(domain.name.clone());
            } else {
                denied.left_out += 1;
            }
        }
    }
    let mut seen = HashSet::new();
    for to in drops() {
        for list in &to.lists {
            if !seen.insert(Arc::as_ptr(list)) {
                continue;
            }
            let whole = list.domains.iter().filter(|(_, scope)| *scope != Scope::Below);
            let room = most - denied.names.len();
            if whole.clone().nth(room).is_some() {
                denied.left_out += whole.count();
                continue;
            }
            for (name, _) in whole {
                let meant = list.find(name).is_some() && !is_excepted(to, name);
                if meant && known.insert(name.to_owned()) {
                    denied.names.push(name.to_owned());
                }
            }
        }
    }
    denied
}

fn is_excepted(to: &Destinations, name: &str) -> bool {
    to.except.as_deref().is_some_and(|except| !by_name(except, name).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        intel::organisations::Organisations,
        policy::{
            self,
            source::{Disk, Source},
        },
    };

    /// The names of policies in TOML, in the order in which the texts are given.
    fn of(texts: &[&str], most: usize) -> DeniedNames {
        let folder = tempfile::tempdir().unwrap();
        let sources: Vec<Source> = texts
            .iter()
            .enumerate()
            .flat_map(|(number, text)| {
                let path = folder.path().join(format!("{number}.toml"));
                std::fs::write(&path, text).unwrap();
                Source::at(&path).unwrap()
            })
            .collect();
        let (policies, findings) =
            policy::load(&sources, &Organisations::embedded().unwrap(), &Disk);
        assert!(!findings.has_errors(), "{}", findings.render(false));
        denied_names(&policies, most)
    }

    const FIRST: &str = r#"
[policy]
name = "first"
mode = "observe"
[[rule]]
name = "mixed"
action = "drop"
to = { lists = ["small"], domains = ["tree.example", "=exact.example", "*.below.example", "y.excepted.example"], except = { domains = ["excepted.example"] } }
[[rule]]
name = "allowed"
action = "allow"
to = { domains = ["good.example"] }
[list.small]
domains = ["listed.example", "excepted.example", "tree.example", "*.below.example"]
"#;
    const SECOND: &str = r#"
[policy]
name = "second"
[[rule]]
name = "log"
action = "log"
to = { domains = ["logged.example"] }
[[rule]]
name = "drop"
action = "drop"
to = { domains = ["tree.example", "x.excepted.example", "other.example"] }
ports = ["tcp/443"]
"#;

    #[test]
    fn whole_names_of_what_drops_and_rules_before_lists() {
        let denied = of(&[FIRST, SECOND], 100);
        let rules = ["tree.example", "exact.example", "x.excepted.example", "other.example"];
        assert_eq!(denied.names, [&rules[..], &["listed.example"]].concat());
        assert_eq!(denied.left_out, 0);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let denied = of(&[FIRST, SECOND], 3);
        assert_eq!(denied.names, ["tree.example", "exact.example", "x.excepted.example"]);
        // One of a rule, and the list with three.
        assert_eq!(denied.left_out, 4);
        // A list is taken whole, though one of it is known.
        assert_eq!(of(&[FIRST, SECOND], 6).left_out, 3);
        assert_eq!(of(&[FIRST, SECOND], 7).left_out, 0);
    }

    #[test]
    fn what_is_shipped_has_room() {
        let sources: Vec<Source> =
            policy::SHIPPED.iter().map(|(name, _)| Source::shipped(name).unwrap()).collect();
        let (policies, _) = policy::load(&sources, &Organisations::embedded().unwrap(), &Disk);
        let denied = denied_names(&policies, crate::intel::ahead::MOST_NAMES);
        assert_eq!(denied.left_out, 0, "{}", denied.names.len());
        assert!(denied.names.len() > 100, "{}", denied.names.len());
        assert!(denied.names.iter().any(|name| name == "hm.baidu.com"));
    }
}
