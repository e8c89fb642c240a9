use std::collections::BTreeSet;

use firewall_common::evaluate::Outcome;
use firewall_common::flow::{Address, Destination, TCP};
use firewall_common::verdict::Verdict;

use crate::intel::organisations::Organisations;
use crate::policy::compile::{Facts, Generation, Ground, Settings, compile};
use crate::policy::source::{Content, Disk, Source};
use crate::policy::{
    Action, AppFacts, Default, Destinations, Domain, Policy, Rule, Scope, load, parse_selector,
};

fn policy(name: &str) -> Policy {
    let source = Source::shipped(name).unwrap();
    let (mut policies, findings) = load(&[source], &Organisations::embedded().unwrap(), &Disk);
    assert_eq!(findings.render(false), "", "{name}");
    policies.pop().unwrap()
}

fn matches(to: &Destinations, name: &str) -> bool {
    let listed = || to.lists.iter().any(|list| list.find(name).is_some());
    to.domains.iter().any(|domain| domain.matches(name)) || listed()
}

/// The first rule that decides the question for a name: one with ports says nothing of it.
fn decides<'p>(policy: &'p Policy, name: &str) -> Option<&'p Rule> {
    let means = |to: &Destinations| {
        matches(to, name) && !to.except.as_ref().is_some_and(|except| matches(except, name))
    };
    let mut rules = policy.rules.iter().filter(|rule| rule.ports.is_empty());
    rules.find(|rule| rule.to.as_ref().is_none_or(means))
}

/// All entries of a policy's rules.
fn entries(policy: &Policy) -> Vec<Domain> {
    let mut entries = Vec::new();
    for to in policy.rules.iter().filter_map(|rule| rule.to.as_ref()) {
        entries.extend(to.domains.iter().cloned());
        for list in &to.lists {
            let listed = list.domains.iter();
            entries.extend(listed.map(|(name, scope)| Domain { name: name.to_owned(), scope }));
        }
    }
    entries
}

/// By policy and rule: what has to be denied. A name after `~` stands for all names under it too.
const DENIED: &[(&str, &str, &[&str])] = &[
    (
        "baidu-tongji",
        "tongji",
        &["hm.baidu.com", "hm.e.shifen.com", "hmcdn.baidu.com", "hmma.baidu.com"],
    ),
    ("baidu-tongji", "console", &["tongji.baidu.com"]),
    ("baidu-tongji", "unverified", &["~bdtjrcv.com"]),
    (
        "volcengine-telemetry",
        "applog",
        &[
            "gator.volces.com",
            "gator.uba.ap-southeast-1.volces.com",
            "tab.volces.com",
            "vephonemon.volces.com",
            "vegamemon.volces.com",
            "lf3-data.volccdn.com",
            "~volceapplog.com",
            "mcs.ctobsnssdk.com",
            "mcs.tobsnssdk.com",
            "mcs.itobsnssdk.com",
            "~datarangers.com",
            "~datarangers.com.cn",
        ],
    ),
    (
        "volcengine-telemetry",
        "apmplus",
        &["apmplus.volces.com", "apmplus.ap-southeast-1.volces.com", "apm.volccdn.com"],
    ),
    (
        "bytedance-telemetry",
        "applog",
        &[
            "mcs.zijieapi.com",
            "mon.zijieapi.com",
            "log.zijieapi.com",
            "mcs.snssdk.com",
            "log.snssdk.com",
            "extlog.snssdk.com",
            "bds.snssdk.com",
            "mon.snssdk.com",
            "applog.snssdk.com",
            "analytics.snssdk.com",
            "xlog.snssdk.com",
            "tobapplog.snssdk.com",
            "toblog.snssdk.com",
            "log.byteoversea.com",
            "mon.byteoversea.com",
            "sgali-mcs.byteoversea.com",
            "maliva-mcs.byteoversea.com",
            "vaali-mcs.byteoversea.com",
            "xlog.byteoversea.com",
            "rtlog.byteoversea.com",
            "mcs.byteoversea.net",
            "mcs-sg.byted.org",
            "mcs.tiktok-row.net",
            "~ibytedapm.com",
            "~bytedapm.com",
        ],
    ),
    (
        "bytedance-telemetry",
        "device-risk",
        &[
            "mssdk.snssdk.com",
            "mssdk.bytedance.com",
            "mssdk-bu.bytedance.com",
            "mssdk-sg.byteoversea.com",
            "mssdk-va.byteoversea.com",
        ],
    ),
    ("bytedance-telemetry", "mixed-host", &["i.snssdk.com"]),
    (
        "tiktok-telemetry",
        "logs",
        &[
            "analytics.tiktok.com",
            "analytics-sg.tiktok.com",
            "mcs-va.tiktok.com",
            "mcs-sg.tiktok.com",
            "mon.tiktokv.com",
            "log.tiktokv.com",
            "mcs-va.tiktokv.com",
            "mcs.us.tiktokv.com",
            "mon.us.tiktokv.com",
            "mcs.tiktokv.us",
            "mcs.tiktokw.us",
            "analytics-ipv6.tiktokw.us",
            "mcs-ie.tiktokw.eu",
        ],
    ),
    ("tiktok-telemetry", "ads", &["ads.tiktok.com", "business-api.tiktok.com"]),
    ("deepseek", "service", &["~deepseek.com"]),
    (
        "deepseek",
        "fingerprint",
        &["fp-it-acc.portal101.cn", "fp-it.portal101.cn", "~fengkongcloud.com"],
    ),
    (
        "deepseek",
        "telemetry",
        &[
            "gator.volces.com",
            "tab.volces.com",
            "apmplus.volces.com",
            "apmplus.ap-southeast-1.volces.com",
            "apm.volccdn.com",
            "lf3-data.volccdn.com",
            "hm.baidu.com",
            "hm.e.shifen.com",
            "hmcdn.baidu.com",
        ],
    ),
    (
        "deepseek-telemetry",
        "applog",
        &["gator.volces.com", "tab.volces.com", "lf3-data.volccdn.com"],
    ),
    ("deepseek-telemetry", "tongji", &["hm.baidu.com", "hm.e.shifen.com", "hmcdn.baidu.com"]),
    (
        "deepseek-telemetry",
        "fingerprint",
        &[
            "fp-it-acc.portal101.cn",
            "fp-it.portal101.cn",
            "fp-it.fengkongcloud.com",
            "fp-it-tracker.fengkongcloud.com",
            "fp-sa-it-acc.fengkongcloud.com",
        ],
    ),
    ("deepseek-telemetry", "own-trackers", &["hif-leim.deepseek.com", "hif-dliq.deepseek.com"]),
    ("firefox-telemetry", "telemetry", &["incoming.telemetry.mozilla.org", "coverage.mozilla.org"]),
    (
        "firefox-telemetry",
        "aggregates",
        &[
            "~api.divviup.org",
            "dap.services.mozilla.com",
            "mozilla-ohttp-dap.mozilla.fastly-edge.com",
        ],
    ),
    ("firefox-telemetry", "new-tab-relay", &["mozilla-ohttp.fastly-edge.com"]),
    ("firefox-telemetry", "studies", &["normandy.cdn.mozilla.net"]),
    ("firefox-telemetry", "crashes", &["crash-reports.mozilla.com"]),
    ("vscode-telemetry", "telemetry", &["mobile.events.data.microsoft.com"]),
    ("vscode-telemetry", "crashes", &["rink.hockeyapp.net"]),
    ("vscode-telemetry", "experiments", &["default.exp-tas.com"]),
    (
        "vscode-telemetry",
        "extensions",
        &[
            "dc.services.visualstudio.com",
            "~in.applicationinsights.azure.com",
            "copilot-telemetry.githubusercontent.com",
            "collector.github.com",
        ],
    ),
];

/// By policy: what no rule of it may match.
const UNTOUCHED: &[(&str, &[&str])] = &[
    (
        "baidu-tongji",
        &["baidu.com", "www.baidu.com", "pan.baidu.com", "pos.baidu.com", "www.a.shifen.com"],
    ),
    (
        "volcengine-telemetry",
        &[
            "volces.com",
            "ark.cn-beijing.volces.com",
            "bucket.tos-cn-beijing.volces.com",
            "www.volcengine.com",
            "api.deepseek.com",
        ],
    ),
    (
        "bytedance-telemetry",
        &[
            "www.toutiao.com",
            "www.douyin.com",
            "www.tiktok.com",
            "api.bytedance.com",
            "gator.volces.com",
        ],
    ),
    (
        "tiktok-telemetry",
        &["www.tiktok.com", "api16-normal.tiktokv.com", "v16.tiktokcdn.com", "newsroom.tiktok.com"],
    ),
    (
        "deepseek",
        &[
            "localhost",
            "ollama.com",
            "huggingface.co",
            "ark.cn-beijing.volces.com",
            "mydeepseek.com",
        ],
    ),
    (
        "deepseek-telemetry",
        &[
            "deepseek.com",
            "api.deepseek.com",
            "chat.deepseek.com",
            "platform.deepseek.com",
            "static.deepseek.com",
            "fe-static.deepseek.com",
            // The captcha of the registration, and the voice mode.
            "castatic.fengkongcloud.com",
            "apmplus.volces.com",
            "apm.volccdn.com",
            "ark.cn-beijing.volces.com",
        ],
    ),
    (
        "firefox-telemetry",
        &[
            "www.mozilla.org",
            "aus5.mozilla.org",
            "addons.mozilla.org",
            "versioncheck.addons.mozilla.org",
            "firefox.settings.services.mozilla.com",
            "accounts.firefox.com",
            "token.services.mozilla.com",
            "safebrowsing.googleapis.com",
            "detectportal.firefox.com",
        ],
    ),
    (
        "vscode-telemetry",
        &[
            "update.code.visualstudio.com",
            "marketplace.visualstudio.com",
            "ms-python.gallery.vsassets.io",
            "ms-python.gallerycdn.vsassets.io",
            "main.vscode-cdn.net",
            "vscode.download.prss.microsoft.com",
            "vscode-sync.trafficmanager.net",
            "api.github.com",
            "api.individual.githubcopilot.com",
            "raw.githubusercontent.com",
        ],
    ),
    (
        "web-analytics",
        &[
            "www.google.com",
            "www.googletagmanager.com",
            "securepubads.g.doubleclick.net",
            "www.baidu.com",
            "www.adobe.com",
            "acme.tt.omtrdc.net",
            "cdn.optimizely.com",
            "o1.ingest.sentry.io",
            "notify.bugsnag.com",
            "us.posthog.com",
            "app.posthog.com",
            "app.amplitude.com",
            "mixpanel.com",
            "app.segment.com",
            "app.pendo.io",
            "app.fullstory.com",
            "hotjar.com",
            "dash.cloudflare.com",
            "wordpress.com",
            "mail.ru",
            "yandex.ru",
        ],
    ),
    (
        "encrypted-dns",
        &[
            "cloudflare.com",
            "www.cloudflare.com",
            "developers.cloudflare.com",
            "workers.dev",
            "proxy.cloudflare-gateway.com",
            "abc.proxy.cloudflare-gateway.com",
            "google.com",
            "www.google.com",
            "quad9.net",
            "on.quad9.net",
            "adguard.com",
            "adguard-dns.io",
            "nextdns.io",
            "my.nextdns.io",
            "opendns.com",
            "login.umbrella.com",
            "cleanbrowsing.org",
            "mullvad.net",
            "controld.com",
            "api.controld.com",
            "joindns4.eu",
            "apple.com",
            "icloud.com",
            "www.icloud.com",
            "rethinkdns.com",
            "alidns.com",
            "360.cn",
            "yandex.net",
            "cira.ca",
            "switch.ch",
            "nic.cz",
            "he.net",
            "arpa",
            "1.0.168.192.in-addr.arpa",
            "ipv4only.arpa",
            "home.arpa",
        ],
    ),
];

/// One host of each kind of service that `web-analytics` is for.
const ANALYTICS: &[(&str, &[&str])] = &[
    (
        "traffic",
        &[
            "www.google-analytics.com",
            "region1.analytics.google.com",
            "mc.yandex.ru",
            "hm.baidu.com",
            "s4.cnzz.com",
            "acme.sc.omtrdc.net",
            "static.cloudflareinsights.com",
            "in.getclicky.com",
            "srv.pixel.parsely.com",
            "acme.matomo.cloud",
            "plausible.io",
            "queue.simpleanalyticscdn.com",
        ],
    ),
    (
        "product",
        &["api-eu.mixpanel.com", "api2.amplitude.com", "eu.i.posthog.com", "api.segment.io"],
    ),
    ("replay", &["static.hotjar.com", "www.clarity.ms", "rs.fullstory.com", "c.contentsquare.net"]),
    ("audience", &["sb.scorecardresearch.com", "secure-gl.imrworldwide.com", "x.hit.gemius.pl"]),
    ("attribution", &["app-measurement.com", "launches.appsflyersdk.com", "app.adjust.com"]),
    ("performance", &["bam.nr-data.net", "d.btttag.com", "dc.services.visualstudio.com"]),
];

/// By rule of `encrypted-dns`: the names that clients of each service use.
const ENCRYPTED: &[(&str, &[&str])] = &[
    ("canaries", &["use-application-dns.net", "mask.icloud.com", "mask-h2.icloud.com"]),
    ("discovery", &["resolver.arpa", "_dns.resolver.arpa"]),
    ("gateway", &["dns.cloudflare-gateway.com", "abc123.cloudflare-gateway.com"]),
    (
        "services",
        &[
            "cloudflare-dns.com",
            "mozilla.cloudflare-dns.com",
            "chrome.cloudflare-dns.com",
            "1dot1dot1dot1.cloudflare-dns.com",
            "security.cloudflare-dns.com",
            "family.cloudflare-dns.com",
            "dns.cloudflare.com",
            "one.one.one.one",
            "dns.google",
            "dns64.dns.google",
            "dns.google.com",
            "8888.google",
            "dns.quad9.net",
            "dns9.quad9.net",
            "dns10.quad9.net",
            "dns11.quad9.net",
            "dns12.quad9.net",
            "dns.adguard-dns.com",
            "family.adguard-dns.com",
            "unfiltered.adguard-dns.com",
            "d.adguard-dns.com",
            "phone.d.adguard-dns.com",
            "dns-family.adguard.com",
            "dns.nextdns.io",
            "abc123.dns.nextdns.io",
            "firefox.dns.nextdns.io",
            "anycast.dns.nextdns.io",
            "abc123.dns1.nextdns.io",
            "doh.opendns.com",
            "doh.familyshield.opendns.com",
            "doh.umbrella.com",
            "dns.umbrella.com",
            "dns.sse.cisco.com",
            "doh.cleanbrowsing.org",
            "family-filter-dns.cleanbrowsing.org",
            "dns.mullvad.net",
            "base.dns.mullvad.net",
            "freedns.controld.com",
            "p2.freedns.controld.com",
            "dns.controld.com",
            "doh.dns.sb",
            "doh.sb",
            "dot.sb",
            "doh.dns.apple.com",
            "protective.joindns4.eu",
            "child-noads.joindns4.eu",
            "sky.rethinkdns.com",
            "1-abc.max.rethinkdns.com",
            "dns.surfsharkdns.com",
            "wikimedia-dns.org",
            "ordns.he.net",
            "dns.decloudus.com",
            "uncensored.dns.dnswarden.com",
            "ada.openbld.net",
            "doh.qis.io",
            "dns.rabbitdns.org",
            "doh.xfinity.com",
            "dot.cox.net",
            "doh-01.spectrum.com",
            "doh.quickline.ch",
            "dns.levonet.sk",
            "dns.alidns.com",
            "doh.pub",
            "sm2.doh.pub",
            "dns.pub",
            "dot.pub",
            "doh.360.cn",
            "doh-pure.onedns.net",
            "doh.volcengine.com",
            "dns.cfiec.net",
            "doh.18bit.cn",
            "dns.twnic.tw",
            "public.dns.iij.jp",
            "dns.seia.io",
            "unfiltered.dns.bebasid.com",
            "dns.caliph.dev",
            "common.dot.dns.yandex.net",
            "safe.dot.dns.yandex.net",
            "dns.comss.one",
            "private.canadianshield.cira.ca",
            "dns.switch.ch",
            "dns.digitale-gesellschaft.ch",
            "kaitain.restena.lu",
            "odvr.nic.cz",
            "dns.cert.ee",
            "doh.applied-privacy.net",
            "dot.ffmuc.net",
            "dnsforge.de",
            "doh.libredns.gr",
            "dns.njal.la",
            "anycast.uncensoreddns.org",
            "unicast.censurfridns.dk",
            "dns.aa.net.uk",
            "resolver.dnsprivacy.org.uk",
            "getdnsapi.net",
            "dnsovertls.sinodun.com",
            "resolver-eu.lelux.fi",
            "public.ns.nwps.fi",
            "doh-de.blahdns.com",
            "dot-jp.blahdns.com",
            "doh.nl.ahadns.net",
            "dns-doh.dnsforfamily.com",
            "root.hagezi.org",
            "dns.jupitrdns.com",
            "dns.dnsguard.pub",
            "doh.tiar.app",
            "doh.tiarap.org",
            "dns.oszx.co",
            "dns.pumplex.com",
            "dns.arapurayil.com",
            "dns.marbledfennec.net",
        ],
    ),
];

/// What a policy lets its apps reach by name, and drops the rest: by policy, rule and ports.
const ALLOWED: &[(&str, &str, &[u16], &[&str])] = &[
    ("python-packages", "pypi", &[443], &["pypi.org", "files.pythonhosted.org"]),
    (
        "coding-agent",
        "claude-code",
        &[443],
        &["api.anthropic.com", "claude.ai", "platform.claude.com", "downloads.claude.ai"],
    ),
    ("coding-agent", "codex", &[443], &["api.openai.com", "chatgpt.com", "auth.openai.com"]),
    ("coding-agent", "opencode", &[443], &["opencode.ai", "models.dev"]),
    (
        "coding-agent",
        "git-hosts",
        &[22, 443],
        &[
            "github.com",
            "api.github.com",
            "codeload.github.com",
            "lfs.github.com",
            "raw.githubusercontent.com",
            "objects.githubusercontent.com",
            "gitlab.com",
        ],
    ),
    ("coding-agent", "npm", &[443], &["registry.npmjs.org", "registry.yarnpkg.com"]),
    ("coding-agent", "pypi", &[443], &["pypi.org", "files.pythonhosted.org"]),
    ("coding-agent", "crates", &[443], &["crates.io", "index.crates.io", "static.crates.io"]),
    ("coding-agent", "go", &[443], &["proxy.golang.org", "sum.golang.org"]),
];

/// By policy: apps that it holds for, and apps that it says nothing of. Each is what is known of one, with
/// spaces between.
const APPS: &[(&str, &[&str], &[&str])] = &[
    (
        "firefox-telemetry",
        &[
            "exe:/usr/lib/firefox/firefox",
            "exe:/usr/lib/firefox/pingsender",
            "exe:/usr/lib/firefox-esr/firefox-esr",
            "exe:/usr/lib/firefox-esr/crashreporter",
            "exe:/usr/lib64/firefox/firefox",
            "exe:/opt/firefox/firefox",
            "exe:/app/lib/firefox/firefox \
             cgroup:/user.slice/user@1000.service/app.slice/app-flatpak-org.mozilla.firefox-42.scope",
            "exe:/snap/firefox/1/usr/lib/firefox/firefox \
             cgroup:/user.slice/user@1000.service/app.slice/snap.firefox.firefox-42.scope",
        ],
        &[
            "exe:/usr/bin/curl",
            "exe:/usr/lib/firefoxes/firefox",
            "exe:/usr/lib/thunderbird/thunderbird",
            "exe:/home/ada/firefox/firefox",
            "cgroup:/user.slice/user@1000.service/app.slice/app-flatpak-org.mozilla.vpn-42.scope",
        ],
    ),
    (
        "vscode-telemetry",
        &[
            "exe:/usr/share/code/code",
            "exe:/usr/share/code/chrome_crashpad_handler",
            "exe:/usr/share/code/resources/app/node_modules/x/tool",
            "exe:/usr/share/code-insiders/code-insiders",
            "exe:/opt/visual-studio-code/code",
            "exe:/home/ada/.vscode/extensions/ms.x-1/bin/server",
            "exe:/home/ada/.vscode-insiders/extensions/ms.x-1/bin/server",
            "cgroup:/user.slice/user@1000.service/app.slice/app-flatpak-com.visualstudio.code-42.scope",
            "cgroup:/user.slice/user@1000.service/app.slice/snap.code.code-42.scope",
            "cgroup:/user.slice/user@1000.service/app.slice/snap.code-insiders.code-42.scope",
        ],
        &[
            "exe:/usr/bin/git",
            "exe:/usr/share/codium/codium",
            "exe:/home/ada/.vscode/code",
            "cgroup:/user.slice/user@1000.service/app.slice/snap.codeblocks.codeblocks-42.scope",
        ],
    ),
    (
        "python-packages",
        &[
            "exe:/usr/bin/python3.13",
            "exe:/usr/local/bin/python3.14 user:1000",
            "exe:/home/ada/.local/share/uv/python/cpython-3.14.0-linux-x86_64-gnu/bin/python3.14",
            "exe:/home/ada/.pyenv/versions/3.14.0/bin/python3.14",
        ],
        &[
            "exe:/usr/bin/python3.13 user:0",
            "exe:/usr/bin/python2.7",
            "exe:/usr/bin/curl user:1000",
            "exe:/home/ada/.local/bin/uv",
        ],
    ),
    (
        "coding-agent",
        &[
            "exe:/usr/bin/node cgroup:/system.slice/coding-agent.scope/firewall-run-1-1",
            "exe:/home/ada/.local/bin/claude \
             cgroup:/user.slice/user@1000.service/app.slice/coding-agent-2.scope",
            "exe:/usr/bin/curl cgroup:/system.slice/coding-agent.service",
        ],
        &[
            "exe:/usr/bin/node",
            "exe:/home/ada/.local/bin/claude",
            "exe:/usr/bin/curl cgroup:/firewall-run-1-1",
            "cgroup:/system.slice/my-coding-agent.scope",
        ],
    ),
];

/// A policy compiled alone.
fn compiled(policy: Policy) -> Generation {
    let facts = Facts { countries: None, asns: None, organisation: &|_| Vec::new() };
    compile(vec![policy], facts, Settings::default()).unwrap()
}

/// Of what is said of an app.
fn app(selectors: &str) -> AppFacts {
    let parse = |text| parse_selector(text, &Disk).unwrap();
    AppFacts::of(&selectors.split_whitespace().map(parse).collect::<Vec<_>>()).unwrap()
}

/// What happens by the only policy: whether it passes, and by which rule; `default` for the policy's, and
/// nothing if the policy says nothing.
fn said(generation: &Generation, outcome: Outcome) -> (bool, Option<&str>) {
    let decision = generation.decision(outcome.decision).unwrap();
    let by = match generation.rule(decision.ground) {
        Some((_, rule)) => Some(rule.name.as_str()),
        None => matches!(decision.ground, Ground::PolicyDefault { .. }).then_some("default"),
    };
    (decision.verdict == Verdict::Allow, by)
}

/// What a question gets.
fn question<'g>(generation: &'g Generation, app: &AppFacts, name: &str) -> (bool, Option<&'g str>) {
    let class = generation.class_of_app(app);
    said(generation, generation.question(class, name).unwrap())
}

/// What a connection gets to an address that a name led to, where a resolver is trusted or not.
fn connection<'g>(
    generation: &'g Generation,
    app: &AppFacts,
    address: [u8; 4],
    port: u16,
    name: Option<(&str, bool)>,
) -> (bool, Option<&'g str>) {
    let address = Address::v4(u32::from_be_bytes(address));
    let to = Destination { address, port, protocol: TCP, port_hidden: 0 };
    let class = generation.class_of_app(app);
    said(generation, generation.evaluate(class, &to, &generation.named_by(name)).unwrap())
}

/// Somebody's address, and this machine's.
const SOMEWHERE: [u8; 4] = [212, 27, 48, 10];
const HERE: [u8; 4] = [127, 0, 0, 1];

/// Hosts of one service mostly share their last two labels.
fn service(host: &str) -> &str {
    host.rmatch_indices('.').nth(1).map_or(host, |(dot, _)| &host[dot + 1..])
}

fn assert_denied(policy: &Policy, rule: &str, name: &str) {
    let found = decides(policy, name);
    assert_eq!(found.map(|rule| rule.name.as_str()), Some(rule), "{}: {name}", policy.name);
    assert_eq!(found.map(|rule| rule.action), Some(Action::Drop), "{}: {name}", policy.name);
}

#[test]
fn what_they_are_for_is_denied_and_no_more() {
    for (name, rule, denied) in DENIED {
        let policy = policy(name);
        for denied in *denied {
            let (host, tree) = match denied.strip_prefix('~') {
                Some(host) => (host, true),
                None => (*denied, false),
            };
            assert_denied(&policy, rule, host);
            if tree {
                assert_denied(&policy, rule, &format!("a.b.{host}"));
            } else {
                let below = decides(&policy, &format!("a.{host}"));
                // What is under a name is another rule's at most.
                assert_ne!(below.map(|found| found.name.as_str()), Some(*rule), "{host}");
            }
            let evil = format!("evil{host}");
            let found = decides(&policy, &evil).map(|rule| &rule.name);
            assert_eq!(found, None, "{name}: {evil}");
        }
        assert_complete(&policy, DENIED.iter().map(|(policy, _, denied)| (*policy, *denied)));
    }
}

/// A table has each entry of each rule: nothing is shipped that no test names.
fn assert_complete<'t>(policy: &Policy, table: impl Iterator<Item = (&'t str, &'t [&'t str])>) {
    let of_policy = table.filter(|(name, _)| *name == policy.name);
    let named: BTreeSet<&str> = of_policy.flat_map(|(_, names)| names.iter().copied()).collect();
    let written: BTreeSet<String> = (entries(policy).into_iter())
        .map(|entry| match entry.scope {
            Scope::Exact => entry.name,
            Scope::Tree => format!("~{}", entry.name),
            Scope::Below => entry.to_string(),
        })
        .collect();
    let name = &policy.name;
    assert!(named.iter().copied().eq(written.iter().map(String::as_str)), "{name}: {written:?}");
}

#[test]
fn what_its_apps_report_is_denied_to_them_alone() {
    for (name, held, others) in APPS {
        let generation = compiled(policy(name));
        let denied = DENIED.iter().filter(|(policy, ..)| policy == name);
        for (_, rule, names) in denied {
            for name in names.iter().map(|name| name.trim_start_matches('~')) {
                let known = Some((name, true));
                for held in held.iter().map(|held| app(held)) {
                    let drop = (false, Some(*rule));
                    assert_eq!(question(&generation, &held, name), drop, "{name} {held:?}");
                    let connection = connection(&generation, &held, SOMEWHERE, 443, known);
                    assert_eq!(connection, drop, "{name} {held:?}");
                }
                for other in others.iter().map(|other| app(other)) {
                    let nothing = (true, None);
                    assert_eq!(question(&generation, &other, name), nothing, "{name} {other:?}");
                    let connection = connection(&generation, &other, SOMEWHERE, 443, known);
                    assert_eq!(connection, nothing, "{name} {other:?}");
                }
            }
        }
    }
}

#[test]
fn what_apps_are_held_to_is_what_they_reach() {
    for (name, rule, ports, names) in ALLOWED {
        let (_, held, others) = APPS.iter().find(|(policy, ..)| policy == name).unwrap();
        let policy = policy(name);
        assert_eq!(policy.default, Some(Default::Drop), "{name}");
        assert_complete(&policy, ALLOWED.iter().map(|(policy, _, _, names)| (*policy, *names)));
        let generation = compiled(policy);
        let dropped = (false, Some("default"));
        for held in held.iter().map(|held| app(held)) {
            let to = |address, port, known: Option<(&str, bool)>| {
                connection(&generation, &held, address, port, known)
            };
            for name in *names {
                assert_eq!(question(&generation, &held, name), (true, Some(*rule)), "{name}");
                for port in *ports {
                    let reached = to(SOMEWHERE, *port, Some((name, true)));
                    assert_eq!(reached, (true, Some(*rule)), "{name} {held:?}");
                    // An answer that nobody trusts, a name below, and one that only looks alike.
                    for (name, trusted) in [
                        ((*name).to_owned(), false),
                        (format!("a.{name}"), true),
                        (format!("evil{name}"), true),
                    ] {
                        let reached = to(SOMEWHERE, *port, Some((&name, trusted)));
                        assert_eq!(reached, dropped, "{name} {held:?}");
                    }
                }
                assert_eq!(to(SOMEWHERE, 80, Some((name, true))), dropped, "{name} {held:?}");
            }
            assert_eq!(to(HERE, 11434, None), (true, Some("loopback")), "{held:?}");
            assert_eq!(to(SOMEWHERE, 443, None), dropped, "{held:?}");
            assert_eq!(to(SOMEWHERE, 443, Some(("ab.chatgpt.com", true))), dropped, "{held:?}");
        }
        for other in others.iter().map(|other| app(other)) {
            let reached = connection(&generation, &other, SOMEWHERE, 443, None);
            assert_eq!(reached, (true, None), "{name} {other:?}");
            assert_eq!(question(&generation, &other, names[0]), (true, None), "{name} {other:?}");
        }
    }
}

/// As the policy says of itself.
#[test]
fn without_its_apps_coding_agent_holds_for_all() {
    let mut source = Source::shipped("coding-agent").unwrap();
    let Content::Text(text) = &source.content else { panic!("no text") };
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("apps = ")).collect();
    assert_eq!(lines.len() + 1, text.lines().count());
    source.content = Content::Text(lines.join("\n").into());
    let (mut policies, findings) = load(&[source], &Organisations::embedded().unwrap(), &Disk);
    assert_eq!(findings.render(false), "");
    let generation = compiled(policies.pop().unwrap());
    let known = Some(("github.com", true));
    for anyone in ["exe:/usr/bin/curl", "user:1000"].map(app) {
        let to = |port, known| connection(&generation, &anyone, SOMEWHERE, port, known);
        assert_eq!(to(443, known), (true, Some("git-hosts")));
        assert_eq!(to(443, None), (false, Some("default")));
    }
}

#[test]
fn what_has_to_stay_usable_does() {
    for (name, untouched) in UNTOUCHED {
        let policy = policy(name);
        for host in untouched.iter().copied().chain(["evilbaidu.com", "example.org"]) {
            let found = decides(&policy, host).map(|rule| &rule.name);
            assert_eq!(found, None, "{name}: {host}");
        }
    }
}

#[test]
fn web_analytics_knows_the_services() {
    let policy = policy("web-analytics");
    for (rule, hosts) in ANALYTICS {
        for host in *hosts {
            assert_denied(&policy, rule, host);
        }
    }
    let rules: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    let known: Vec<&str> = ANALYTICS.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules[0], "loopback");
    assert_eq!(rules[1..], known);
    let entries = entries(&policy);
    let services: BTreeSet<&str> = entries.iter().map(|entry| service(&entry.name)).collect();
    assert!(services.len() >= 80, "{}", services.len());
}

#[test]
fn encrypted_dns_knows_the_services() {
    let policy = policy("encrypted-dns");
    for (rule, hosts) in ENCRYPTED {
        for host in *hosts {
            assert_denied(&policy, rule, host);
        }
    }
    let entries = entries(&policy);
    for entry in &entries {
        let evil = format!("evil{}", entry.name);
        assert_eq!(decides(&policy, &evil).map(|rule| &rule.name), None, "{evil}");
    }
    let services: BTreeSet<&str> = entries.iter().map(|entry| service(&entry.name)).collect();
    let named = ENCRYPTED.iter().flat_map(|(_, hosts)| *hosts).map(|host| service(host)).collect();
    assert!(services.len() >= 60, "{}", services.len());
    assert_eq!(services, named, "every service is in the table above");
}

#[test]
fn no_entry_says_what_another_of_its_policy_says() {
    for (name, _) in super::SHIPPED {
        let policy = policy(name);
        let entries = entries(&policy);
        for (at, entry) in entries.iter().enumerate() {
            let others = entries.iter().enumerate().filter(|(other, _)| *other != at);
            let mut covering = others.filter(|(_, other)| match entry.scope {
                Scope::Below => other.matches(&format!("a.{}", entry.name)),
                Scope::Exact | Scope::Tree => other.matches(&entry.name),
            });
            assert_eq!(covering.next().map(|(_, other)| other), None, "{name}: {entry}");
        }
    }
}

#[test]
fn the_loopback_is_allowed_first() {
    let dropping = DENIED.iter().map(|(name, ..)| *name).chain(["web-analytics", "encrypted-dns"]);
    let allowing = ALLOWED.iter().map(|(name, ..)| *name);
    for name in dropping.clone().chain(allowing) {
        let policy = policy(name);
        let first = &policy.rules[0];
        let networks: Vec<String> =
            first.to.iter().flat_map(|to| &to.networks).map(ToString::to_string).collect();
        assert_eq!(first.action, Action::Allow, "{name}");
        assert_eq!(networks, ["127.0.0.0/8", "::1/128"], "{name}");
        assert_eq!(policy.priority, 100, "{name}");
        assert!(policy.default.is_none() || dropping.clone().all(|one| one != name), "{name}");
    }
}
