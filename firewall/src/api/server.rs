//! Connections: who, how many, and for how long. One request each.
//!
//! A client cannot keep others out. Those without rights, those who may read and those who may change
//! have places of their own; where these run out, the process that has the most loses its oldest.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    task::{AbortHandle, Id, JoinSet},
};
use tower_service::Service as _;

use super::{
    peer::{Peer, Right, Rights},
    routes,
};
use crate::daemon::control::Control;

/// Connections at once, for each right.
pub const MOST: usize = 128;
/// How long a client may take to send what it asks for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request before its body, and of an answer that is held for a client.
const BUFFER: usize = 32 << 10;
/// How long no connection is taken when the system has no room for one.
const PAUSE: Duration = Duration::from_millis(100);
/// To whom there is no place.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
    connection: close\r\n\r\n{\"error\":{\"message\":\"too many requests at once\",\
    \"hint\":\"ask again in a moment\"}}";

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon is there.
    #[error("another process answers at {}\n\nhint: stop it, or name another socket with --socket", .0.display())]
    Answered(PathBuf),
    /// What is there may be of value.
    #[error("{} is there and no socket\n\nhint: remove it, or name another path with --socket", .0.display())]
    NoSocket(PathBuf),
    /// Something of the system.
    #[error("cannot listen at {}: {source}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Listens at a path. A socket at which nobody answers any more makes room, and a missing folder is made.
/// Everybody may connect: the server knows who it is, and can say why not.
///
/// # Errors
/// When another process answers there, or the path is no socket.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let system = |source| BindError::System { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(BindError::NoSocket(path.to_owned()));
        }
        Ok(_) if is_answered(path).map_err(system)? => {
            return Err(BindError::Answered(path.to_owned()));
        }
        Ok(_) => fs::remove_file(path).map_err(system)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(system)?;
            }
        }
        Err(error) => return Err(system(error)),
    }
    let listener = UnixListener::bind(path).map_err(system)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(system)?;
    Ok(listener)
}

/// Whether a process listens. One that is too busy to take a connection does.
fn is_answered(path: &Path) -> io::Result<bool> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT) => Ok(false),
        Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PROTOTYPE) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Answers until it is dropped; with it end all connections.
pub async fn serve(listener: UnixListener, control: Control, rights: Rights) {
    let router = routes::router(control);
    let mut tasks = JoinSet::new();
    let mut places = Places::default();
    loop {
        tokio::select! {
            Some(ended) = tasks.join_next_with_id() => {
                places.free(match ended { Ok((id, ())) => id, Err(error) => error.id() });
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(stream, &router, rights, &mut tasks, &mut places),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
        // Who was let in gets to ask before the next one takes the place.
        tokio::task::yield_now().await;
    }
}

fn admit(
    stream: UnixStream,
    router: &Router,
    rights: Rights,
    tasks: &mut JoinSet<()>,
    places: &mut Places,
) {
    // Who cannot be told is gone.
    let Ok(peer) = Peer::of(&stream) else { return };
    let right = rights.of(&peer);
    if !places.make_room(right) {
        // The answer fits into an empty socket.
        let _ = stream.try_write(BUSY);
        return;
    }
    let asked = Arc::new(AtomicBool::new(false));
    let task = tasks.spawn(answer(stream, router.clone(), right, Arc::clone(&asked)));
    places.taken.push(Place { task, pid: peer.pid, right, asked });
}

/// Answers one request. What goes wrong with a connection is the client's matter.
async fn answer(stream: UnixStream, router: Router, right: Right, asked: Arc<AtomicBool>) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(right);
        let mut router = router.clone();
        let asked = Arc::clone(&asked);
        async move {
            asked.store(true, Ordering::Relaxed);
            let response = router.call(request.map(Body::new)).await;
            asked.store(false, Ordering::Relaxed);
            response
        }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Connections, the oldest first.
#[derive(Default)]
struct Places {
    taken: Vec<Place>,
}

struct Place {
    task: AbortHandle,
    pid: i32,
    right: Right,
    /// What it asked for is being done.
    asked: Arc<AtomicBool>,
}

impl Places {
    fn free(&mut self, id: Id) {
        self.taken.retain(|place| place.task.id() != id);
    }

    /// Whether there is room for one more, if need be in place of another that has not asked for
    /// anything, or whose answer is on its way.
    fn make_room(&mut self, right: Right) -> bool {
        let same = || self.taken.iter().filter(|place| place.right == right);
        if same().count() < MOST {
            return true;
        }
        let mut each: HashMap<i32, usize> = HashMap::new();
        same().for_each(|place| *each.entry(place.pid).or_default() += 1);
        let idle = self
            .taken
            .iter()
            .enumerate()
            .filter(|(_, place)| place.right == right && !place.asked.load(Ordering::Relaxed));
        // Of equals the last one is taken: the oldest.
        let victim = idle.rev().max_by_key(|(_, place)| each.get(&place.pid));
        let Some((index, _)) = victim else { return false };
        self.taken.remove(index).task.abort();
        true
    }
}
