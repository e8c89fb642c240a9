//! What the path of a cgroup tells of an app: systemd's unit, and what packed the app up.
//!
//! The selectors `unit:`, `flatpak:`, `snap:` and `container:` of policies look for the same forms.

use serde::{Deserialize, Serialize};

/// What a path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// systemd's name for the cgroup.
    pub unit: Option<String>,
    /// ID of a Flatpak app.
    pub flatpak: Option<String>,
    /// Name of a snap.
    pub snap: Option<String>,
    /// The container.
    pub container: Option<Container>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Container {
    /// The engine's number, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it was made from, as its engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its name, as its engine says, or as the cgroup has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Engines whose cgroups are `ENGINE-ID.scope`; one that begins like another stands before it.
pub(crate) const ENGINES: [&str; 6] =
    ["docker", "libpod-payload", "libpod", "cri-containerd", "crio", "nerdctl"];

/// What a path from the root of the hierarchy tells. Of several units and containers inside each other
/// it is the outermost: further in, names are given by what runs there. The manager of a user's units
/// does not count as one of them.
pub fn labels(path: &str) -> Labels {
    let mut labels = Labels::default();
    let mut above = "";
    for name in path.split('/') {
        let is_unit = name.ends_with(".service") || name.ends_with(".scope");
        let manager = |unit: &String| unit.starts_with("user@");
        if is_unit && labels.unit.as_ref().is_none_or(manager) {
            labels.unit = Some(name.to_owned());
        }
        labels.flatpak = labels.flatpak.or_else(|| flatpak(name));
        labels.snap = labels.snap.or_else(|| snap(name));
        labels.container = labels.container.or_else(|| container(above, name));
        above = name;
    }
    labels
}

fn flatpak(name: &str) -> Option<String> {
    let name = name.strip_suffix(".scope")?;
    let name = name.strip_prefix("app-flatpak-").or_else(|| name.strip_prefix("flatpak-"))?;
    let (id, _number) = name.rsplit_once('-')?;
    id.contains('.').then(|| unescaped(id))
}

fn snap(name: &str) -> Option<String> {
    let (snap, rest) = name.strip_prefix("snap.")?.split_once('.')?;
    let is_unit = rest.ends_with(".scope") || rest.ends_with(".service");
    (is_unit && !snap.is_empty()).then(|| snap.to_owned())
}

fn container(above: &str, name: &str) -> Option<Container> {
    let stem = name.strip_suffix(".scope").unwrap_or(name);
    let id = match above {
        "docker" => name,
        _ => ENGINES
            .iter()
            .find_map(|engine| stem.strip_prefix(engine)?.strip_prefix('-'))
            .unwrap_or_default(),
    };
    let is_id = (12..=64).contains(&id.len())
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_id {
        return Some(Container { id: Some(id.to_owned()), ..Container::default() });
    }
    let machine = match above {
        "lxc" | "lxc.payload" => Some(name.to_owned()),
        _ => stem
            .strip_prefix("machine-")
            .filter(|_| stem != name)
            .or_else(|| name.strip_prefix("systemd-nspawn@")?.strip_suffix(".service"))
            .map(unescaped)
            .or_else(|| name.strip_prefix("lxc.payload.").map(str::to_owned)),
    };
    let name = machine.filter(|name| !name.is_empty())?;
    Some(Container { name: Some(name), ..Container::default() })
}

/// The text that systemd has escaped: `\x2d` is `-` (systemd.unit(5)). Anything but two hexadecimal digits
/// behind `\x` makes no escape.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = rest.strip_prefix(b"\\x").and_then(|digits| {
            let (&[high, low], behind) = digits.split_first_chunk()?;
            let digit = |digit: u8| char::from(digit).to_digit(16);
            Some(((digit(high)? << 4 | digit(low)?) as u8, behind))
        });
        let (byte, behind) = escaped.unwrap_or((*first, behind));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A unit without what tells one start of it from the next: a number or a random text at the end of a
/// scope becomes `*`, as a selector has it.
pub fn without_instance(unit: &str) -> String {
    let Some(mut stem) = unit.strip_suffix(".scope") else { return unit.to_owned() };
    let random = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && part.bytes().any(|byte| byte.is_ascii_digit())
    };
    if stem.starts_with("run-") {
        return "run-*.scope".to_owned();
    }
    while let Some((before, _)) = stem.rsplit_once('-').filter(|(_, part)| random(part)) {
        stem = before;
    }
    match stem.len() + ".scope".len() == unit.len() {
        true => unit.to_owned(),
        false => format!("{stem}-*.scope"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_unit_is_the_outermost() {
        for (path, unit) in [
            ("/", None),
            ("/firewall-run-1-2", None),
            ("/system.slice", None),
            ("/system.slice/docker.service", Some("docker.service")),
            ("/system.slice/x.service/forged.service", Some("x.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/user.slice/user-1000.slice/user@1000.service", Some("user@1000.service")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a-7.scope/x",
                Some("app-a-7.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service/b.service",
                Some("a.service"),
            ),
        ] {
            assert_eq!(labels(path).unit.as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn what_packed_an_app_up() {
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        let flatpak = |name: &str| labels(&format!("{user}/{name}")).flatpak;
        let id = Some("org.mozilla.firefox".to_owned());
        assert_eq!(flatpak("app-flatpak-org.mozilla.firefox-123.scope"), id);
        assert_eq!(flatpak("flatpak-org.mozilla.firefox-123.scope"), id);
        assert_eq!(flatpak(r"app-flatpak-io.a\x2db.c-1.scope").as_deref(), Some("io.a-b.c"));
        assert_eq!(flatpak("app-flatpak-session-1.scope"), None);
        assert_eq!(flatpak("app-gnome-org.mozilla.firefox-123.scope"), None);

        let snap = |name: &str| labels(&format!("{user}/{name}")).snap;
        assert_eq!(snap("snap.firefox.firefox-1b2c.scope").as_deref(), Some("firefox"));
        assert_eq!(snap("snap.lxd.daemon.service").as_deref(), Some("lxd"));
        assert_eq!(snap("snap.firefox"), None);
        assert_eq!(snap("snap..x.scope"), None);
    }

    #[test]
    fn containers() {
        let id = |path: String| labels(&path).container.and_then(|container| container.id);
        for path in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/docker/{ID}/init.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/machine.slice/libpod-payload-{ID}"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/system.slice/docker-{ID}.scope/docker/{}", ID.replace('0', "f")),
        ] {
            assert_eq!(id(path.clone()).as_deref(), Some(ID), "{path}");
        }
        for path in [
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/x/{ID}"),
            format!("/docker/{}", ID.to_uppercase()),
            "/docker/abc".to_owned(),
            "/docker/buildkit".to_owned(),
        ] {
            assert_eq!(labels(&path).container, None, "{path}");
        }
        let name = |path: &str| labels(path).container.and_then(|container| container.name);
        assert_eq!(name(r"/machine.slice/machine-my\x2dbox.scope/x").as_deref(), Some("my-box"));
        assert_eq!(name("/machine.slice/systemd-nspawn@web.service").as_deref(), Some("web"));
        assert_eq!(name("/lxc/web/system.slice").as_deref(), Some("web"));
        assert_eq!(name("/lxc.payload.web").as_deref(), Some("web"));
        assert_eq!(name("/machine-x"), None);
        for text in [r"a\x+fb", r"a\x-1b", r"a\x 1b", r"a\x0gb", r"a\x", r"a\x0", r"a\X2d", r"a\2d"]
        {
            let path = format!("/machine.slice/machine-{text}.scope");
            assert_eq!(name(&path).as_deref(), Some(text), "no escape");
        }
        assert_eq!(name(r"/machine.slice/machine-\x2Dx.scope").as_deref(), Some("-x"));
    }

    #[test]
    fn starts_of_a_unit_are_one() {
        for (unit, same) in [
            ("app-gnome-firefox-1234.scope", "app-gnome-firefox-*.scope"),
            ("session-3.scope", "session-*.scope"),
            ("vte-spawn-1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4be1.scope", ""),
            ("run-r1f2e.scope", "run-*.scope"),
            ("init.scope", "init.scope"),
            ("app-x-cafe.scope", "app-x-cafe.scope"),
            ("docker.service", "docker.service"),
            ("1.scope", "1.scope"),
        ] {
            let found = without_instance(unit);
            match same {
                "" => assert!(found.starts_with("vte-spawn-") && found.ends_with("-*.scope")),
                _ => assert_eq!(found, same),
            }
        }
    }
}
