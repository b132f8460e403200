//! Conversations between two sides that need no process of their own.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wire::{self, Message, PROTOCOL};
use super::*;

/// A process that writes down what is asked of it.
#[derive(Default)]
struct Fake {
    no: Mutex<Option<String>>,
    busy: AtomicBool,
    resumed: AtomicU32,
    retired: AtomicU32,
    listeners: Vec<std::net::TcpListener>,
}

#[async_trait::async_trait]
impl Incumbent for Fake {
    fn sockets(&self) -> Result<Sockets, String> {
        if let Some(why) = self.no.lock().unwrap().clone() {
            return Err(why);
        }
        let mut sockets = Sockets::default();
        for listener in &self.listeners {
            sockets.add(Role::Plain, listener.local_addr().unwrap(), listener.try_clone().unwrap());
        }
        Ok(sockets)
    }

    async fn pause(&self) -> Result<Value, String> {
        match self.busy.load(SeqCst) {
            true => Err("the store is away".to_owned()),
            false => Ok(json!({ "known": [1, 2, 3] })),
        }
    }

    async fn resume(&self) {
        self.resumed.fetch_add(1, SeqCst);
    }

    fn retire(&self, successor: u32) {
        self.retired.store(successor, SeqCst);
    }
}

fn fake(listeners: usize) -> Arc<Fake> {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    Arc::new(Fake { listeners: (0..listeners).map(|_| listen()).collect(), ..Fake::default() })
}

async fn take(path: &Path) -> Result<(Predecessor, Sockets), HandoverError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || take_over(&path)).await.unwrap()
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not within five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_knowledge_go_over_and_the_old_process_retires() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s.sock");
    // More than go into one message.
    let old = fake(150);
    let post = open(&path, old.clone(), false).unwrap();
    let (mut predecessor, mut sockets) = take(&path).await.unwrap();
    assert_eq!(predecessor.pid, std::process::id());
    for listener in &old.listeners {
        let address = listener.local_addr().unwrap();
        let taken = sockets.take(Role::Plain, address).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(sockets.take(Role::Plain, address).is_none() && sockets.take(Role::Admin, address).is_none());
    }
    let (predecessor, known) = tokio::task::spawn_blocking(move || {
        let known = predecessor.pause();
        (predecessor, known)
    })
    .await
    .unwrap();
    assert_eq!(known.unwrap()["known"][2], 3);
    assert_eq!(old.retired.load(SeqCst), 0);
    tokio::task::spawn_blocking(move || predecessor.retire()).await.unwrap().unwrap();
    assert_eq!((old.retired.load(SeqCst), old.resumed.load(SeqCst)), (std::process::id(), 0));
    // The new process puts its own socket there; the old one leaves it alone.
    let next = open(&path, fake(1), true).unwrap();
    drop(post);
    assert!(take(&path).await.is_ok());
    drop(next);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_off_leaves_the_old_process_as_it_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s.sock");
    let old = fake(1);
    let _post = open(&path, old.clone(), false).unwrap();
    drop(take(&path).await.unwrap());
    let (mut predecessor, _) = take(&path).await.unwrap();
    tokio::task::spawn_blocking(move || predecessor.pause().map(drop)).await.unwrap().unwrap();
    until(|| old.resumed.load(SeqCst) == 1).await;
    old.busy.store(true, SeqCst);
    let (mut predecessor, _) = take(&path).await.unwrap();
    let refused = tokio::task::spawn_blocking(move || predecessor.pause()).await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "the other process does not hand over: the store is away");
    *old.no.lock().unwrap() = Some("not now".to_owned());
    assert!(take(&path).await.unwrap_err().to_string().ends_with("not now"));
    assert_eq!(old.retired.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_that_do_not_understand_each_other_say_so() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s.sock");
    let _post = open(&path, fake(1), false).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        let hello = Message::Hello { protocol: PROTOCOL + 1, release: "9.0.0".to_owned(), pid: 1 };
        wire::say(&mut stream, &hello).unwrap();
        wire::hear(&mut stream).unwrap()
    });
    let Message::No { why } = answer.await.unwrap() else { panic!("it is refused") };
    assert!(why.contains("9.0.0") && why.contains("version 2"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_left_behind_is_replaced_and_anything_else_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("s.sock");
    assert!(matches!(take(&path).await, Err(HandoverError::Nobody { .. })));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(take(&path).await, Err(HandoverError::Nobody { .. })), "nobody listens on it");
    let post = open(&path, fake(1), false).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "only the own user may ask");
    assert!(matches!(open(&path, fake(1), false), Err(HandoverError::Taken { .. })));
    drop(post);
    std::fs::write(&path, "precious").unwrap();
    let refused = open(&path, fake(1), false).unwrap_err();
    assert!(matches!(refused, HandoverError::Listen { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn sockets_of_the_service_manager_are_known_by_their_address() {
    let listener = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut sockets = Sockets::default();
    sockets.add(Role::Admin, ([127, 0, 0, 1], 9900).into(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.append(Sockets::loose(vec![listener]));
    assert!(sockets.take(Role::Plain, ([127, 0, 0, 1], port).into()).is_none(), "open to more than was asked for");
    assert_eq!(sockets.left().len(), 2);
    assert!(sockets.take(Role::Plain, ([0, 0, 0, 0], port).into()).is_some(), "`[::]` is everywhere, as 0.0.0.0 is");
    assert!(sockets.take(Role::Admin, ([127, 0, 0, 1], 9900).into()).is_some());
    assert!(sockets.left().is_empty());
}
