//! Each kind of mistake by itself: what is said, what is underlined, what the hint has.

use super::*;

/// A sound policy but for the given lines of its rule.
pub fn with_rule(lines: &str) -> String {
    format!("[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\naction = \"drop\"\n{lines}\n")
}

pub fn with_to(to: &str) -> String {
    with_rule(&format!("to = {{ {to} }}"))
}

fn with_policy(lines: &str) -> String {
    format!("[policy]\nname = \"p\"\ndefault = \"drop\"\n{lines}\n")
}

/// That the first finding has this message, a hint with this in it, and underlines this.
#[track_caller]
fn assert_first(text: &str, underlined: &str, message: &str, hint: &str) {
    let (policies, diagnostics) = check(text);
    assert!(policies.is_empty() || !diagnostics.has_errors());
    let shown = diagnostics.render(false);
    let first = diagnostics.iter().next().unwrap_or_else(|| panic!("no finding in:\n{text}"));
    assert_eq!(first.message, message, "{shown}");
    assert!(first.hint.as_ref().is_some_and(|h| h.contains(hint)), "no {hint:?} in:\n{shown}");
    assert_eq!(text.get(first.place.span.clone()), Some(underlined), "{shown}");
}

#[test]
fn mistakes_in_a_policy() {
    let lists_of = |lines: &str| with_policy(&format!("[list.l]\n{lines}"));
    let cases: &[(&str, &str, &str, &str)] = &[
        ("mode = \"observ\"", "\"observ\"", "there is no mode `observ`", "`observe`"),
        ("mode = 1", "1", "`mode` is a string, not an integer", "mode = \"enforce\""),
        ("priority = -1", "-1", "`-1` is not a priority", "0 to 65535"),
        ("priority = 65536", "65536", "`65536` is not a priority", "0 to 65535"),
        ("priority = 1.5", "1.5", "`priority` is an integer, not a float", "0 to 65535"),
        ("apps = []", "[]", "`apps` is empty", "apps = [\"exe:/usr/bin/firefox\"]"),
        ("apps = \"*\"", "\"*\"", "`apps` is an array of strings, not a string", "apps = [\"*\"]"),
        ("apps = [\"exe:curl\"]", "\"exe:curl\"", "`exe:curl` is not an app", "whole path"),
        ("apps = [\"/bin/x\"]", "\"/bin/x\"", "`/bin/x` is not an app", "`exe:/bin/x`"),
        ("apps = [\"uint:a\"]", "\"uint:a\"", "`uint:a` is not an app", "`unit:a`"),
        ("apps = [\"user:\"]", "\"user:\"", "`user:` is not an app", "needs a value"),
        (
            "except-apps = [\"*\"]",
            "[\"*\"]",
            "`except-apps` takes out every app: nothing is left",
            "leave",
        ),
        ("action = \"drop\"", "action", "`[policy]` has no key `action`", "[[rule]]"),
        ("rule = []", "rule", "`[policy]` has no key `rule`", "[[rule]]"),
    ];
    for (lines, underlined, message, hint) in cases {
        assert_first(&with_policy(lines), underlined, message, hint);
    }
    let lists: &[(&str, &str, &str, &str)] = &[
        (
            "file = \"x\"\nformat = \"adblok\"",
            "\"adblok\"",
            "there is no format `adblok`",
            "adblock",
        ),
        ("url = \"x\"", "\"x\"", "`x` is not a URL of a list", "https://"),
        ("url = \"https://x/never\"\nrefresh = \"1\"", "\"1\"", "`1` is not a time span", "24h"),
        ("url = \"https://x/never\"\nsha256 = \"1\"", "\"1\"", "`1` is not a SHA-256", "64"),
        ("domains = [\"1.2.3.4\"]", "\"1.2.3.4\"", "`1.2.3.4` is an address", "networks"),
        (
            "url = \"https://x/never\"",
            "\"https://x/never\"",
            "the list `l` is empty: it was never fetched",
            "`firewall list update`",
        ),
        (
            "url = \"http://x/never\"",
            "\"http://x/never\"",
            "lists are not fetched over http: whoever is on the way could change them",
            "`https://x/never`",
        ),
        ("url = \"ftp://x/\"", "\"ftp://x/\"", "`ftp://x/` is not a URL of a list", "https://"),
        ("url = \"https://\"", "\"https://\"", "`https://` is not a URL of a list", "https://"),
        (
            "url = \"https://ada:secret@x/\"",
            "\"https://ada:secret@x/\"",
            "the URL has a name or a password in it",
            "leave it out",
        ),
        (
            "url = \"https://x/never\"\nrefresh = \"30s\"",
            "\"30s\"",
            "`30s` is not a time span",
            "`24h`",
        ),
        (
            "url = \"https://x/never\"\nrefresh = \"0d\"",
            "\"0d\"",
            "`0d` is not a time span",
            "`24h`",
        ),
        (
            "file = \"none\"",
            "\"none\"",
            "the list cannot be read: No such file or directory (os error 2)",
            "policy's folder",
        ),
        (
            "file = \"binary\"",
            "\"binary\"",
            "the list cannot be read: nothing in it tells its format",
            "one of hosts, domains",
        ),
        (
            "file = \"broken.lsrules\"",
            "\"broken.lsrules\"",
            "the list cannot be read: line 3: expected value",
            "JSON object",
        ),
        (
            &format!("file = \"empty.txt\"\nsha256 = \"{}\"", "0".repeat(64)),
            &format!("\"{}\"", "0".repeat(64)),
            "the file is another one: its SHA-256 is \
             `a350f927b0c80b2b11dd85ee2ea7b2c022fbd013488b1ff60e408f110da05dfe`",
            "the new SHA-256",
        ),
        ("file = \"empty.txt\"", "\"empty.txt\"", "the list `l` has no entries", "comments"),
        (
            "file = \"unusable.txt\"",
            "\"unusable.txt\"",
            "the list `l` has no entries",
            "`firewall list show`",
        ),
        ("domains = [\"x\"]", "l", "no rule names the list `l`", "lists = [\"l\"]"),
        (
            "domains = [\"*baidu.com\"]",
            "\"*baidu.com\"",
            "`*baidu.com` is not a domain",
            "`baidu.com`",
        ),
    ];
    for (lines, underlined, message, hint) in lists {
        // That no rule names the list comes before it, and only if nothing is wrong.
        let text = lists_of(lines);
        let (_, diagnostics) = check(&text);
        let shown = diagnostics.render(false);
        let found = diagnostics.iter().find(|found| found.message == *message);
        let found = found.unwrap_or_else(|| panic!("no {message:?} in:\n{shown}"));
        assert!(found.hint.as_ref().is_some_and(|h| h.contains(hint)), "{found:?}");
        assert_eq!(&text[found.place.span.clone()], *underlined);
    }
    for lines in ["", "format = \"auto\"", "file = \"x\"\nurl = \"https://x/never\""] {
        assert!(check(&lists_of(lines)).1.errors() > 0, "{lines}");
    }
}

#[test]
fn mistakes_around_a_policy() {
    let rule = "[[rule]]\nname = \"r\"\naction = \"drop\"\nports = [\"tcp\"]\n";
    assert_first("", "", "the file is empty", "[policy]");
    assert_first("\u{feff}", "", "the file has no policy", "[policy]");
    assert_first(rule, "", "there is no `[policy]`", "[policy]");
    let text = &format!("[policy]\n{rule}");
    assert_first(text, "[policy]", "the policy has no `name`", "name");
    let nothing = "the policy has no rules and no `default`: it does nothing";
    assert_first("[policy]\nname = \"x\"\n", "[policy]", nothing, "[[rule]]");
    let text = "[policy]\nname = \"x\"\ndefault = \"deny\"\n";
    assert_first(text, "\"deny\"", "there is no default `deny`", "`drop`");
    let text = format!("[[policy]]\nname = \"x\"\n{rule}");
    assert_first(&text, "[[policy]]", "`policy` is a table, not an array", "`[policy]`, once");
    let text = "[policy]\nname = \"x\"\n[rule]\nname = \"r\"\n";
    assert_first(
        text,
        "[rule]",
        "`rule` is a table, and a policy has an array of them",
        "[[rule]]",
    );
    let text = "[policy]\nname = \"x\"\n[[rules]]\nname = \"r\"\n";
    let (_, diagnostics) = check(text);
    assert!(diagnostics.render(false).contains("did you mean `[[rule]]`?"));
    let text = "rule = [1]\n[policy]\nname = \"x\"\n";
    assert_first(text, "1", "a rule is a table, not an integer", "[[rule]]");
    let text = "rule = []\n[policy]\nname = \"x\"\n";
    assert_first(text, "[]", "`rule` is empty", "[[rule]]");
    for name in ["", "-a", "a b", "A", "é", "a/b", &"a".repeat(65)] {
        let text = format!("[policy]\nname = \"{name}\"\ndefault = \"drop\"\n");
        let message = format!("{} is not a name", quoted(name));
        assert_first(&text, &format!("\"{name}\""), &message, "lower-case");
    }
}

#[test]
fn mistakes_in_a_rule() {
    let text = "[policy]\nname = \"p\"\n[[rule]]\naction = \"drop\"\nports = [\"tcp\"]\n";
    assert_first(text, "[[rule]]", "the rule has no `name`", "name");
    let text = "[policy]\nname = \"p\"\n[[rule]]\nname = \"r\"\nports = [\"tcp\"]\n";
    assert_first(text, "[[rule]]", "the rule has no `action`", "drop");
    for (action, meant) in
        [("deny", "drop"), ("block", "drop"), ("accept", "allow"), ("alow", "allow")]
    {
        let text = with_rule("ports = [\"tcp\"]").replace("\"drop\"", &format!("\"{action}\""));
        let message = format!("there is no action `{action}`");
        assert_first(&text, &format!("\"{action}\""), &message, &format!("mean `{meant}`?"));
    }
    let cases: &[(&str, &str, &str, &str)] = &[
        ("", "[[rule]]", "the rule is empty: it has neither `to` nor `ports`", "\"::/0\""),
        (
            "apps = [\"*\"]",
            "[[rule]]",
            "the rule is empty: it has neither `to` nor `ports`",
            "::/0",
        ),
        ("to = [\"CN\"]", "[\"CN\"]", "`to` is a table, not an array", "jurisdictions"),
        ("to = {}", "{}", "`to` is empty", "\"::/0\""),
        (
            "jurisdictions = [\"CN\"]\nports = [\"tcp\"]",
            "jurisdictions",
            "a rule has no key `jurisdictions`",
            "to = {",
        ),
        ("port = [\"tcp\"]\nto.asns = [\"AS1\"]", "port", "a rule has no key `port`", "`ports`"),
        ("priority = 1\nports = [\"tcp\"]", "priority", "a rule has no key `priority`", "[policy]"),
        ("ports = []", "[]", "`ports` is empty", "tcp/443"),
        ("ports = 443", "443", "`ports` is an array of strings, not an integer", "[\"tcp/443\"]"),
        ("ports = [443]", "443", "`ports` holds strings, not an integer", "\"tcp/443\""),
        ("ports = [\"443/udp\"]", "\"443/udp\"", "`443/udp` is not a port", "`udp/443`"),
        (
            "ports = [\"8000-8999\"]",
            "\"8000-8999\"",
            "`8000-8999` is not a port",
            "`tcp/8000-8999`",
        ),
        ("ports = [\"tcp/\"]", "\"tcp/\"", "`tcp/` is not a port", "tcp/443"),
        ("ports = [\"tcp/+1\"]", "\"tcp/+1\"", "`tcp/+1` is not a port", "tcp/443"),
        ("ports = [\"proto\"]", "\"proto\"", "`proto` names no protocol", "proto/47"),
        ("ports = [\"dccp/1\"]", "\"dccp/1\"", "`dccp/1` is not a port", "proto/"),
        ("ports = [\"TCP/1\"]", "\"TCP/1\"", "`TCP/1` is not a port", "`tcp/1`"),
        ("ports = [\"icmpv6/1\"]", "\"icmpv6/1\"", "`icmpv6` has no ports", "alone"),
    ];
    for (lines, underlined, message, hint) in cases {
        assert_first(&with_rule(lines), underlined, message, hint);
    }
}

#[test]
fn mistakes_in_destinations() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("jurisdictions = [\"CHN\"]", "\"CHN\"", "there is no country `CHN`", "`CN`"),
        ("jurisdictions = [\"china\"]", "\"china\"", "there is no country `china`", "`CN`"),
        ("jurisdictions = []", "[]", "`jurisdictions` is empty", "CN"),
        ("jurisdictions = [1]", "1", "`jurisdictions` holds strings, not an integer", "CN"),
        ("countries = [\"CN\"]", "countries", "`to` has no key `countries`", "`jurisdictions`"),
        (
            "organisations = [\"baidoo\"]",
            "\"baidoo\"",
            "there is no organisation `baidoo`",
            "`baidu`",
        ),
        (
            "organizations = [\"baidu\"]",
            "organizations",
            "`to` has no key `organizations`",
            "`organisations`",
        ),
        (
            "asns = [\"AS4294967296\"]",
            "\"AS4294967296\"",
            "`AS4294967296` is too large for an AS number",
            "4294967295",
        ),
        ("asns = [\"as1\"]", "\"as1\"", "`as1` is not an AS number", "`AS1`"),
        ("asns = [\"AS+1\"]", "\"AS+1\"", "`AS+1` is not an AS number", "AS1"),
        ("asns = 37963", "37963", "`asns` is an array of strings, not an integer", "[\"AS37963\"]"),
        (
            "networks = [\"2001:db8::/129\"]",
            "\"2001:db8::/129\"",
            "`2001:db8::/129` has a prefix that is too long",
            "/128",
        ),
        (
            "networks = [\"2001:db8::1/32\"]",
            "\"2001:db8::1/32\"",
            "`2001:db8::1/32` has bits set behind its prefix",
            "`2001:db8::/32`",
        ),
        (
            "networks = [\"10.0.0.0/255.0.0.0\"]",
            "\"10.0.0.0/255.0.0.0\"",
            "`10.0.0.0/255.0.0.0` is not an address or a CIDR",
            "`10.0.0.0/8`",
        ),
        (
            "networks = [\"10.0.0.0-10.0.0.255\"]",
            "\"10.0.0.0-10.0.0.255\"",
            "`10.0.0.0-10.0.0.255` is not an address or a CIDR",
            "`10.0.0.0/24`",
        ),
        (
            "networks = [\"baidu.com\"]",
            "\"baidu.com\"",
            "`baidu.com` is not an address or a CIDR",
            "`domains`",
        ),
        (
            "networks = [\"::ffff:1.2.3.0/120\"]",
            "\"::ffff:1.2.3.0/120\"",
            "`::ffff:1.2.3.0/120` is IPv4 in the form of IPv6, which is judged as IPv4",
            "`1.2.3.0/24`",
        ),
        (
            "networks = [\"1.2.3\"]",
            "\"1.2.3\"",
            "`1.2.3` is not an address or a CIDR",
            "192.0.2.0/24",
        ),
        ("domains = [\"x.*.cn\"]", "\"x.*.cn\"", "`x.*.cn` is not a domain", "`*.baidu.com`"),
        ("lists = [\"l\"]", "\"l\"", "there is no list `l`", "[list.NAME]"),
        (
            "except = { asns = [\"AS1\"] }",
            "except",
            "there is nothing to except from: `to` names no destination",
            "::/0",
        ),
        ("asns = [\"AS1\"], except = {}", "{}", "`except` is empty", "leave"),
        (
            "asns = [\"AS1\"], except = { domains = [\"1.2.3.4\"] }",
            "\"1.2.3.4\"",
            "`1.2.3.4` is an address",
            "`networks`",
        ),
        (
            "asns = [\"AS1\"], except = { asns = [\"AS0\"] }",
            "\"AS0\"",
            "AS 0 is reserved: nobody announces addresses with it",
            "AS1",
        ),
    ];
    for (to, underlined, message, hint) in cases {
        assert_first(&with_to(to), underlined, message, hint);
    }
}

#[test]
fn selectors_that_are_none() {
    let cases: &[(&str, &str)] = &[
        ("exe:*/curl", "`exe:**/x`"),
        ("exe:usr/bin/curl", "whole path"),
        ("exe:/usr/bin/", "`exe:/usr/bin/**`"),
        ("exe:/usr//bin/x", "`//`"),
        ("exe:/usr/../bin/x", "`..`"),
        ("exe:/usr/**x", "`**` is any folders"),
        ("cgroup:system.slice", "`cgroup:**/system.slice`"),
        ("unit:docker", "`unit:docker.service`"),
        ("unit:app-x", "`unit:app-x.scope`"),
        ("unit:/system.slice/a.service", "`cgroup:/system.slice/a.service`"),
        ("docker.service", "`unit:docker.service`"),
        ("flatpak:firefox", "flatpak list"),
        ("snap:Firefox", "snap list"),
        ("container:abc", "12 to 64 digits"),
        ("container:a/b", "docker ps"),
        ("docker:0123456789ab", "`container:0123456789ab`"),
        ("uid:0", "`user:0`"),
        ("firefox", "an app is `*`"),
        ("exe:", "needs a value"),
    ];
    for (selector, hint) in cases {
        let text = with_rule(&format!("apps = ['{selector}']"));
        assert_first(&text, &format!("'{selector}'"), &format!("`{selector}` is not an app"), hint);
    }
    let others: &[(&str, &str, &str)] = &[
        ("exe:/x/[a", "`exe:/x/[a` is not a glob: unclosed character class; missing ']'", "`[*]`"),
        ("exe:/x/[é]", "`exe:/x/[é]` is not a glob: only ASCII can stand in brackets", "`[*]`"),
        (
            "exe:/x/a[.-0]b",
            "`exe:/x/a[.-0]b` is not a glob: what stands in brackets is one character of a name, and never `/`",
            "`[*]`",
        ),
        (
            "exe:/x/a{,b}",
            "`exe:/x/a{,b}` is not a glob: an alternative in braces is empty",
            "`[*]`",
        ),
        (
            "exe:/x/a{b,}",
            "`exe:/x/a{b,}` is not a glob: an alternative in braces is empty",
            "`[*]`",
        ),
        ("cgroup:/", "`cgroup:/` is every app", "`*`"),
        ("user:nobody-here", "this machine knows no user `nobody-here`", "getent passwd"),
        ("group:nobody-here", "this machine knows no group `nobody-here`", "getent group"),
        ("user:broken", "the user `broken` cannot be looked up: no answer", "`user:1000`"),
        ("user:4294967295", "`user:4294967295` is past the last number of a user", "4294967294"),
    ];
    for (selector, message, hint) in others {
        let text = with_rule(&format!("apps = ['{selector}']"));
        assert_first(&text, &format!("'{selector}'"), message, hint);
    }
}

#[test]
fn apps_of_which_none_is_left() {
    let of_policy = |policy: &str, rule: &str| {
        with_rule(rule).replace("name = \"p\"\n", &format!("name = \"p\"\n{policy}\n"))
    };
    let apart = "no app of the policy is one of the rule's";
    let all = "`except-apps` takes out all of `apps`: nothing is left";
    for (policy, rule) in [
        ("exe:/a", "exe:/b"),
        ("exe:/a", "exe:/b/*"),
        ("kernel", "user:0"),
        ("unknown", "exe:/a"),
        ("user:0", "user:1"),
        ("cgroup:/a", "cgroup:/ab"),
        ("kernel", "unknown"),
    ] {
        for (policy, rule) in [(policy, rule), (rule, policy)] {
            let text = of_policy(&format!("apps = ['{policy}']"), &format!("apps = ['{rule}']"));
            assert_first(&text, &format!("['{rule}']"), apart, "both");
        }
    }
    let excepted = "apps = ['exe:/a', 'user:0']\nexcept-apps = ['exe:/*', 'user:0']";
    assert_first(&with_rule(excepted), "['exe:/a', 'user:0']", all, "leave one");
    let text = of_policy(excepted, "ports = [\"tcp\"]");
    assert_first(&text, "['exe:/*', 'user:0']", all, "leave one");
    let text = of_policy("apps = ['exe:/a']", "except-apps = ['exe:/**']");
    let message = "`except-apps` takes out all apps of the policy: nothing is left";
    assert_first(&text, "['exe:/**']", message, "policy's `apps`");
    // What could be is no mistake.
    for (policy, rule) in [
        ("exe:/a", "exe:/*"),
        ("exe:/a", "user:0"),
        ("unit:a.service", "unit:b.service"),
        ("cgroup:/a", "cgroup:/a/b"),
        ("unknown", "user:0"),
        ("*", "kernel"),
        ("exe:/x/*", "exe:/y/*"),
    ] {
        for (policy, rule) in [(policy, rule), (rule, policy)] {
            let rule = format!("apps = ['{rule}']\nports = [\"tcp\"]");
            let text = of_policy(&format!("apps = ['{policy}']"), &rule);
            let (_, diagnostics) = check(&text);
            assert_eq!(diagnostics.render(false), "", "{text}");
        }
    }
}

#[test]
fn a_script_lets_nothing_pass() {
    let forged = |so: &str| format!("`script:/s.py` can be forged, so {so}");
    for (action, key, so) in [
        ("allow", "apps", "it never supports an `allow`"),
        ("log", "apps", "it never supports a `log`, which lets pass"),
        ("drop", "except-apps", "it takes nothing out of a `drop`"),
    ] {
        let text = with_rule(&format!("{key} = ['exe:/a', 'script:/s.py']"))
            .replace("\"drop\"", &format!("\"{action}\""));
        assert_first(&text, "'script:/s.py'", &forged(so), "`exe:`");
    }
    let policy = |head: &str, action: &str| {
        format!(
            "[policy]\nname = \"p\"\n{head}\n[[rule]]\nname = \"d\"\naction = \"drop\"\n\
             ports = [\"tcp\"]\n[[rule]]\nname = \"r\"\naction = \"{action}\"\nports = [\"udp\"]\n"
        )
    };
    for (head, action, so) in [
        ("apps = ['script:/s.py']", "allow", "it cannot let pass, and rule `r` says `allow`"),
        ("apps = ['script:/s.py']", "log", "it cannot let pass, and rule `r` says `log`"),
        (
            "default = \"allow\"\napps = ['script:/s.py']",
            "drop",
            "it cannot let pass, and its `default` is `allow`",
        ),
        (
            "except-apps = ['script:/s.py']",
            "allow",
            "it takes nothing out of what drops, and rule `d` says `drop`",
        ),
    ] {
        let message = forged(so);
        assert_first(&policy(head, action), "['script:/s.py']", &message, "policy of its own");
    }
    for (head, action) in
        [("default = \"drop\"\napps = ['script:/s.py']", "drop"), ("default = \"allow\"", "allow")]
    {
        assert_eq!(check(&policy(head, action)).1.render(false), "");
    }
    let text = with_rule("except-apps = ['script:/s.py']").replace("\"drop\"", "\"allow\"");
    assert_eq!(check(&text).1.render(false), "");
}

#[test]
fn rules_for_a_time() {
    let boot = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    let rule = |action: &str, until: &str| {
        let text = with_rule(&format!("ports = [\"tcp\"]\nuntil = {until}"));
        text.replace("\"drop\"", &format!("\"{action}\""))
    };
    let sound = format!("\"{boot}+5400s\"");
    for until in ["", "1h", &format!("{boot}+s"), &format!("{boot}+1"), &format!("{boot}x+1s")] {
        let message = format!("`{until}` is not a moment of a start of this machine");
        let until = format!("\"{until}\"");
        assert_first(&rule("allow", &until), &until, &message, "--for 1h");
    }
    assert_first(
        &rule("drop", &sound),
        "until",
        "a rule that drops is not for a time",
        "leave `until` out",
    );
    let (_, diagnostics) = check(&rule("allow", &sound));
    let said = diagnostics.render(false);
    // Nobody keeps time here.
    assert!(!diagnostics.has_errors() && said.contains("rule `r` is left out"), "{said}");
}
