//! What must hold of requests to the API, and of answers of name servers.

use std::{collections::HashSet, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use firewall::{
    api::{dto::Failure, peer::Right, routes::router},
    daemon::control::Control,
    intel::resolver::Answer,
};
use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData},
};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{broadcast, mpsc},
};
use tower_service::Service as _;

thread_local! {
    static PLACE: (Runtime, TempDir) = (
        Builder::new_current_thread().enable_time().build().expect("a runtime"),
        TempDir::new().expect("a folder for temporary files"),
    );
}

/// A request, `METHOD TARGET` and from the second line on a body, of whoever the first byte says: nobody
/// changes something who may not, and every refusal says why.
pub fn api(bytes: &[u8]) {
    let Some((who, rest)) = bytes.split_first() else { return };
    let right = [Right::None, Right::Read, Right::Change][usize::from(who % 3)];
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let line = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let body = lines.next().unwrap_or_default().to_vec();
    let Some((method, target)) = line.split_once(' ') else { return };
    let request =
        Request::builder().method(method).uri(target).extension(right).body(Body::from(body));
    let Ok(request) = request else { return };
    PLACE.with(|(runtime, state)| {
        // Nobody takes what is asked for: only what stands before that is of interest here.
        let (requests, _) = mpsc::channel(1);
        let control = Control {
            requests,
            verdicts: broadcast::channel(1).0,
            state: state.path().to_owned(),
            missed: Arc::default(),
        };
        runtime.block_on(async {
            let Ok(answer) = router(control).call(request).await;
            let status = answer.status();
            let known = [
                StatusCode::OK,
                StatusCode::BAD_REQUEST,
                StatusCode::FORBIDDEN,
                StatusCode::NOT_FOUND,
                StatusCode::METHOD_NOT_ALLOWED,
                StatusCode::SERVICE_UNAVAILABLE,
            ];
            assert!(known.contains(&status), "{line:?}: {status}");
            if right == Right::None {
                assert_eq!(status, StatusCode::FORBIDDEN, "{line:?}");
            }
            if method != "GET" && method != "HEAD" && method != "POST" {
                assert!(status.is_client_error(), "{line:?}: {status}");
            }
            if status != StatusCode::OK && method != "HEAD" {
                let told = to_bytes(answer.into_body(), 1 << 20).await.expect("a whole answer");
                let told: Failure = serde_json::from_slice(&told)
                    .unwrap_or_else(|error| panic!("{line:?}: {error}"));
                assert!(!told.error.message.is_empty(), "{line:?}");
            }
        });
    });
}

/// An answer of a name server, as far as the library reads it: what is found stands in its records.
pub fn answer(bytes: &[u8]) {
    let Ok(message) = Message::from_vec(bytes) else { return };
    let first = message.answers.first().map(|record| record.name.clone());
    let asked = message.queries.first().map(|query| query.name().clone());
    for name in asked.into_iter().chain(first).chain([Name::root()]) {
        let found = Answer::read(&name, &message.answers);
        assert!(found.chain.len() <= 16, "{found:?}");
        let mut seen = HashSet::new();
        for one in &found.addresses {
            assert!(one.ttl <= i32::MAX as u32, "{one:?}");
            assert!(seen.insert((one.ip, one.target.clone())), "{one:?} twice");
            let stands = message.answers.iter().any(|record| match &record.data {
                RData::A(a) => one.record == "A" && one.ip == a.0,
                RData::AAAA(aaaa) => one.record == "AAAA" && one.ip == aaaa.0,
                RData::HTTPS(_) => one.record == "HTTPS",
                _ => false,
            });
            assert!(stands, "{one:?}");
        }
    }
}
