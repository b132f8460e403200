//! A receiver of other people's calls: records what arrives and answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;

use crate::harness::until;

/// One call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What a receiver does next: status and headers. When nothing is left, it answers 200.
pub type Reply = (u16, Vec<(&'static str, String)>);

#[derive(Default)]
pub struct Receiver {
    pub calls: Arc<Mutex<Vec<Call>>>,
    pub replies: Arc<Mutex<VecDeque<Reply>>>,
    /// It takes calls and never answers.
    pub hang: Arc<AtomicBool>,
    address: Option<SocketAddr>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let mut receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        receiver.address = Some(listener.local_addr().unwrap());
        let (calls, replies, hang) = (receiver.calls.clone(), receiver.replies.clone(), receiver.hang.clone());
        let router = Router::new().fallback(move |request: Request| {
            let (calls, replies, hang) = (calls.clone(), replies.clone(), hang.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
                let text = |v: &axum::http::HeaderValue| v.to_str().unwrap().to_owned();
                let headers = head.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
                calls.lock().unwrap().push(Call { path: head.uri.to_string(), headers, body });
                if hang.load(SeqCst) {
                    std::future::pending::<()>().await;
                }
                let (status, headers) = replies.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
                let mut answer = Response::builder().status(status);
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                answer.body(Body::from("noted")).unwrap()
            }
        });
        receiver.task = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address.unwrap())
    }

    /// What it does with the next calls.
    pub fn reply(&self, status: u16, headers: &[(&'static str, &str)]) {
        let headers = headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        self.replies.lock().unwrap().push_back((status, headers));
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The calls, once there are at least so many.
    pub async fn wait_for(&self, count: usize) -> Vec<Call> {
        until(&format!("{count} calls arrive"), Duration::from_secs(20), async || self.calls().len() >= count).await;
        self.calls()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
