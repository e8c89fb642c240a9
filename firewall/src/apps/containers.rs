//! What a container is called, as Docker and Podman keep it on disk.
//!
//! Only what root alone can write is read: of a user's own containers the ID is known, and nothing
//! more.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::cgroup::Container;
use crate::regular::read;

/// Bytes of a file that are read. Podman keeps all containers in one.
const MAX_FILE: u64 = 16 << 20;
/// Containers that are remembered.
const MAX_KNOWN: usize = 1024;

/// Finds names and images of containers.
pub struct Containers {
    docker: PathBuf,
    podman: PathBuf,
    known: HashMap<String, Option<Named>>,
    /// Files that could not be read or understood.
    pub unreadable: u64,
}

#[derive(Clone)]
struct Named {
    name: Option<String>,
    image: Option<String>,
}

/// Of Docker's `config.v2.json`.
#[derive(Deserialize)]
struct Docker {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: DockerConfig,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Image")]
    image: String,
}

/// Of an entry of Podman's `containers.json`.
#[derive(Deserialize)]
struct Podman {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    /// JSON in a string.
    #[serde(default)]
    metadata: String,
}

#[derive(Deserialize)]
struct PodmanMetadata {
    #[serde(rename = "image-name")]
    image: String,
}

impl Containers {
    /// Of the system that is below `root`.
    pub fn below(root: &Path) -> Self {
        Self {
            docker: root.join("var/lib/docker/containers"),
            podman: root.join("var/lib/containers/storage/overlay-containers"),
            known: HashMap::new(),
            unreadable: 0,
        }
    }

    /// Adds what is known of a container by its ID.
    pub fn name(&mut self, container: Container) -> Container {
        let Some(id) = &container.id else { return container };
        // It is part of a path.
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return container;
        }
        if !self.known.contains_key(id) {
            let found = self.docker(id).or_else(|| self.podman(id));
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
            self.known.insert(id.clone(), found);
        }
        match self.known.get(id) {
            Some(Some(Named { name, image })) => {
                Container { name: name.clone(), image: image.clone(), ..container }
            }
            _ => container,
        }
    }

    fn docker(&mut self, id: &str) -> Option<Named> {
        let path = self.docker.join(id).join("config.v2.json");
        let Docker { name, config } = self.parse(&path)?;
        // Docker writes `/web`.
        let name = name.trim_start_matches('/').to_owned();
        Some(Named { name: filled(name), image: filled(config.image) })
    }

    fn podman(&mut self, id: &str) -> Option<Named> {
        // Those of `--rm` are in the second one.
        for file in ["containers.json", "volatile-containers.json"] {
            let path = self.podman.join(file);
            let Some(all) = self.parse::<Vec<Podman>>(&path) else { continue };
            if let Some(Podman { names, metadata, .. }) = all.into_iter().find(|one| one.id == id) {
                let image = serde_json::from_str(&metadata).ok();
                return Some(Named {
                    name: names.into_iter().next().and_then(filled),
                    image: image.and_then(|PodmanMetadata { image }| filled(image)),
                });
            }
        }
        None
    }

    fn parse<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let parsed = match read(path, MAX_FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => None,
        };
        self.unreadable += u64::from(parsed.is_none());
        parsed
    }
}

/// A text that says something.
fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const WEB: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const JOB: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn named(containers: &mut Containers, id: &str) -> (Option<String>, Option<String>) {
        let container = Container { id: Some(id.to_owned()), ..Container::default() };
        let Container { id: same, name, image } = containers.name(container);
        assert_eq!(same.as_deref(), Some(id));
        (name, image)
    }

    #[test]
    fn docker() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/lib/docker/containers").join(WEB);
        fs::create_dir_all(&folder).unwrap();
        let text = r#"{"ID":"x","Name":"/web","Image":"sha256:1","Config":{"Image":"nginx:1"}}"#;
        fs::write(folder.join("config.v2.json"), text).unwrap();
        let mut containers = Containers::below(root.path());
        let web = (Some("web".to_owned()), Some("nginx:1".to_owned()));
        assert_eq!(named(&mut containers, WEB), web);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(named(&mut containers, WEB), web, "a container keeps what it is called");
        assert_eq!(named(&mut containers, JOB), (None, None));
        assert_eq!(containers.unreadable, 0);
    }

    #[test]
    fn podman() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/lib/containers/storage/overlay-containers");
        fs::create_dir_all(&folder).unwrap();
        let one = |id: &str, name: &str, image: &str| {
            let metadata = format!(r#"{{"image-name":"{image}","name":"{name}"}}"#);
            serde_json::json!([{"id": id, "names": [name], "image": "1", "metadata": metadata}])
        };
        let write = |file: &str, value: serde_json::Value| {
            fs::write(folder.join(file), value.to_string()).unwrap();
        };
        write("containers.json", one(WEB, "web", "docker.io/library/nginx:1"));
        write("volatile-containers.json", one(JOB, "job", "quay.io/job"));
        let mut containers = Containers::below(root.path());
        let web = (Some("web".to_owned()), Some("docker.io/library/nginx:1".to_owned()));
        assert_eq!(named(&mut containers, WEB), web);
        let job = (Some("job".to_owned()), Some("quay.io/job".to_owned()));
        assert_eq!(named(&mut containers, JOB), job);
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/lib/docker/containers").join(WEB);
        fs::create_dir_all(folder.join("config.v2.json")).unwrap();
        let folder = root.path().join("var/lib/containers/storage/overlay-containers");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("containers.json"), "[{").unwrap();
        let mut containers = Containers::below(root.path());
        assert_eq!(named(&mut containers, WEB), (None, None));
        assert_eq!(named(&mut containers, WEB), (None, None));
        assert_eq!(containers.unreadable, 2, "each file once");
        // Not an ID, and not looked for.
        assert_eq!(named(&mut containers, "../x"), (None, None));
        assert_eq!(containers.unreadable, 2);
    }
}
