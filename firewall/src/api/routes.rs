//! What can be asked for, and the description of it.

use std::{
    sync::{OnceLock, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{RawQuery, Request, State},
    handler::Handler as _,
    http::{StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use jiff::Zoned;
use tokio::{sync::oneshot, time::timeout};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    dto::{Change, Failure, Fetched, Follow, List, Off, Policy, Question, Reason, SCHEMA, Status},
    peer::{GROUP, Right},
    server::PATIENCE,
    stream,
};
use crate::{
    daemon::control::{Answer, Control, Kind, Refusal, Request as Asked},
    events::{
        Event, Lost,
        filter::{Asked as Wanted, Filter, Wrong},
    },
    policy::source::Disk,
};

/// How long the daemon may take to tell something.
const ASKING: Duration = Duration::from_secs(30);
/// How long it may take to compile, or to fetch lists.
const CHANGING: Duration = Duration::from_secs(15 * 60);
/// Bytes of the body of a request.
const BODY: usize = 64 << 10;
/// Media type of a JSON object a line.
const LINES: &str = "application/jsonl";

/// What all answers need.
#[derive(Clone)]
struct Shared {
    control: Control,
}

/// The way to each answer. A request carries the [`Right`] of who asks among its extensions.
pub fn router(control: Control) -> Router {
    let shared = Shared { control };
    let (router, _) = described().split_for_parts();
    router
        // Who may not read is not told what there is.
        .fallback(no_path.layer(middleware::from_fn(may_read)))
        .method_not_allowed_fallback(no_method.layer(middleware::from_fn(may_read)))
        .with_state(shared)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "firewall",
        description = "The API of the firewall's daemon, over its Unix socket. Reading is for root \
                       and the group `firewall`, changing for root alone."
    ),
    components(schemas(Event, Lost))
)]
struct Description;

fn described() -> OpenApiRouter<Shared> {
    let changing = OpenApiRouter::new()
        .routes(routes!(reload))
        .routes(routes!(rollback))
        .routes(routes!(off))
        .routes(routes!(update_lists))
        .route_layer(middleware::from_fn(may_change));
    let reading = OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(policies))
        .routes(routes!(lists))
        .routes(routes!(verdicts))
        .routes(routes!(log))
        .routes(routes!(explain))
        .routes(routes!(openapi))
        .route_layer(middleware::from_fn(may_read));
    OpenApiRouter::with_openapi(Description::openapi()).merge(reading).merge(changing)
}

/// The OpenAPI description of all this.
pub fn description() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let (_, description) = described().split_for_parts();
        // It has no keys that are not text.
        description.to_json().unwrap_or_default()
    })
}

/// Why a request is not answered.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    message: String,
    hint: Option<String>,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self { status, message, hint } = self;
        (status, Json(Failure { error: Reason { message, hint } })).into_response()
    }
}

impl From<Refusal> for Refused {
    fn from(Refusal { message, kind }: Refusal) -> Self {
        Self::new(
            match kind {
                Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
                Kind::Cannot => StatusCode::INTERNAL_SERVER_ERROR,
            },
            message,
        )
    }
}

fn right(request: &Request) -> Right {
    request.extensions().get().copied().unwrap_or(Right::None)
}

async fn may_read(request: Request, next: Next) -> Response {
    match right(&request) {
        Right::None => Refused::new(
            StatusCode::FORBIDDEN,
            format!("only root and the group `{GROUP}` may ask the daemon"),
        )
        .hint(format!("`sudo usermod -aG {GROUP} NAME`, then log in again; or use sudo"))
        .into_response(),
        Right::Read | Right::Change => next.run(request).await,
    }
}

async fn may_change(request: Request, next: Next) -> Response {
    match right(&request) {
        Right::None | Right::Read => {
            Refused::new(StatusCode::FORBIDDEN, "only root may change what is in force")
                .hint("use sudo")
                .into_response()
        }
        Right::Change => next.run(request).await,
    }
}

async fn no_path(uri: Uri) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
        .hint("GET /v1/openapi.json describes what there is")
}

async fn no_method(method: axum::http::Method, uri: Uri) -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
        .hint("GET /v1/openapi.json describes what does")
}

/// Asks the daemon.
async fn ask<T>(
    Shared { control, .. }: &Shared,
    limit: Duration,
    request: impl FnOnce(Answer<T>) -> Asked,
) -> Result<T, Refused> {
    let (answer, answered) = oneshot::channel();
    let asking = async {
        control.requests.send(request(answer)).await.map_err(|_| Refused::stopping())?;
        Ok(answered.await.map_err(|_| Refused::stopping())??)
    };
    timeout(limit, asking).await.unwrap_or_else(|_| {
        let message = format!("the daemon has not answered for {} s", limit.as_secs());
        Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, message))
    })
}

async fn whole_status(shared: &Shared) -> Result<Status, Refused> {
    let mut status = ask(shared, ASKING, Asked::Status).await?;
    status.losses.streams = shared.control.missed.load(Ordering::Relaxed);
    Ok(status)
}

/// The daemon in a glance
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, description = "How it is", body = Status),
    (status = "default", description = "Why not", body = Failure),
))]
async fn status(State(shared): State<Shared>) -> Result<Json<Status>, Refused> {
    Ok(Json(whole_status(&shared).await?))
}

/// Policies in the order in which they are tried, with hits
#[utoipa::path(get, path = "/v1/policies", responses(
    (status = 200, description = "Those in force", body = [Policy]),
    (status = "default", description = "Why not", body = Failure),
))]
async fn policies(State(shared): State<Shared>) -> Result<Json<Vec<Policy>>, Refused> {
    Ok(Json(whole_status(&shared).await?.policies))
}

/// Lists by URL
#[utoipa::path(get, path = "/v1/lists", responses(
    (status = 200, description = "Those of the policies in force", body = [List]),
    (status = "default", description = "Why not", body = Failure),
))]
async fn lists(State(shared): State<Shared>) -> Result<Json<Vec<List>>, Refused> {
    Ok(Json(ask(&shared, ASKING, Asked::Lists).await?))
}

/// Fetch all lists by URL now
#[utoipa::path(post, path = "/v1/lists/update", responses(
    (status = 200, description = "What became of each", body = [Fetched]),
    (status = "default", description = "Why not", body = Failure),
))]
async fn update_lists(State(shared): State<Shared>) -> Result<Json<Vec<Fetched>>, Refused> {
    Ok(Json(ask(&shared, CHANGING, Asked::UpdateLists).await?))
}

/// Compile the policies anew and swap them in; if they are not valid, nothing changes
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, description = "What is in force now", body = Change),
    (status = "default", description = "Why not", body = Failure),
))]
async fn reload(State(shared): State<Shared>) -> Result<Json<Change>, Refused> {
    Ok(Json(ask(&shared, CHANGING, Asked::Reload).await?))
}

/// Swap the generation before in
#[utoipa::path(post, path = "/v1/rollback", responses(
    (status = 200, description = "What is in force now", body = Change),
    (status = "default", description = "Why not", body = Failure),
))]
async fn rollback(State(shared): State<Shared>) -> Result<Json<Change>, Refused> {
    Ok(Json(ask(&shared, CHANGING, Asked::Rollback).await?))
}

/// Remove enforcement
#[utoipa::path(post, path = "/v1/off", responses(
    (status = 200, description = "Nothing is enforced any more", body = Off),
    (status = "default", description = "Why not", body = Failure),
))]
async fn off(State(shared): State<Shared>) -> Result<Json<Off>, Refused> {
    ask(&shared, CHANGING, Asked::Off).await?;
    Ok(Json(Off { schema: SCHEMA }))
}

/// What would happen to a connection, by which rule and on what evidence
#[utoipa::path(post, path = "/v1/explain", request_body = Question, responses(
    (status = 200, description = "As of `firewall explain --json`", body = serde_json::Value),
    (status = "default", description = "Why not", body = Failure),
))]
async fn explain(
    State(shared): State<Shared>,
    body: Body,
) -> Result<Json<serde_json::Value>, Refused> {
    let bytes = match timeout(PATIENCE, to_bytes(body, BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!("the question is not whole, or longer than {BODY} bytes");
            return Err(Refused::new(StatusCode::BAD_REQUEST, message));
        }
        Err(_) => return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the question is late")),
    };
    let question: Question = serde_json::from_slice(&bytes).map_err(|error| {
        Refused::new(StatusCode::BAD_REQUEST, format!("this is no question: {error}"))
            .hint("send a JSON object as `{\"destination\": \"1.2.3.4:443\"}`")
    })?;
    Ok(Json(ask(&shared, ASKING, |answer| Asked::Explain(question, answer)).await?))
}

/// Verdicts as they are reached
///
/// Each line is an `Event` or, where this reader was too slow, a `Lost`.
#[utoipa::path(get, path = "/v1/verdicts", params(Follow, Wanted), responses(
    (status = 200, description = "A JSON object a line", body = String, content_type = LINES),
    (status = "default", description = "Why not", body = Failure),
))]
async fn verdicts(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let (follow, asked): (Vec<_>, Vec<_>) =
        pairs(query.as_deref()).into_iter().partition(|(key, _)| key == "follow");
    if !follow.iter().any(|(_, value)| value == "true") {
        return Err(bad("without `follow=true` there is nothing to wait for")
            .hint("GET /v1/log has what was recorded"));
    }
    let filter = filter(asked)?;
    let lines =
        stream::verdicts(shared.control.verdicts.subscribe(), filter, shared.control.missed);
    Ok(([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response())
}

/// Verdicts that were recorded, the oldest first
///
/// Lines are as they stand in the log: each is an `Event` or a `Lost`. One that is not understood is
/// passed on.
#[utoipa::path(get, path = "/v1/log", params(Wanted), responses(
    (status = 200, description = "A JSON object a line", body = String, content_type = LINES),
    (status = "default", description = "Why not", body = Failure),
))]
async fn log(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Refused> {
    let filter = filter(pairs(query.as_deref()))?;
    let lines = stream::log(&shared.control.state, filter).map_err(|error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the log: {error}"))
    })?;
    Ok(([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response())
}

/// This description
#[utoipa::path(get, path = "/v1/openapi.json", responses(
    (status = 200, description = "OpenAPI 3.1", body = serde_json::Value),
    (status = "default", description = "Why not", body = Failure),
))]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], description()).into_response()
}

fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.into_owned().collect()
}

/// What lets through what is asked for; nothing where that is everything.
fn filter(pairs: Vec<(String, String)>) -> Result<Option<Filter>, Refused> {
    let refuse = |wrong: Wrong| bad(format!("{}: {}", wrong.key, wrong.message)).hint(wrong.hint);
    let asked = Wanted::of_query(pairs).map_err(refuse)?;
    if asked.is_all() {
        return Ok(None);
    }
    let filter = asked.filter(&Zoned::now(), &Disk);
    filter.map(Some).map_err(|mut all| match all.len() {
        1 => refuse(all.remove(0)),
        _ => bad(all.iter().map(Wrong::to_string).collect::<Vec<_>>().join("\n")),
    })
}

fn bad(message: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, message)
}
