//! A load that forgives nothing: clients that keep their connections, never try again, and count everything as a failure
//! that is not the expected answer, whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicU64,
    pub failed: AtomicU64,
    /// Answers that said that the connection is not to be used again.
    pub closes: AtomicU64,
    /// The first failures, in words.
    pub failures: Mutex<Vec<String>>,
    /// The longest time that an answer took, in microseconds.
    pub slowest_us: AtomicU64,
}

/// Clients that run until they are stopped.
pub struct Strict {
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Strict {
    /// Clients of HTTP/1.1, each with one connection, each waiting a little longer between two requests than the one
    /// before it; every other one sends bodies. And two of HTTP/2.
    pub fn start(proxy: &str, clients: u64) -> Self {
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let address = proxy.trim_start_matches("http://").to_owned();
        let mut tasks: Vec<_> = (0..clients)
            .map(|n| {
                let pause = Duration::from_millis(n * n);
                tokio::spawn(client(address.clone(), n, pause, counts.clone(), stop.clone()))
            })
            .collect();
        tasks.extend((0..2).map(|n| tokio::spawn(http2(proxy.to_owned(), n, counts.clone(), stop.clone()))));
        Self { counts, stop, tasks }
    }

    /// Ends the clients.
    pub async fn stop(self) -> Arc<Counts> {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.counts
    }
}

impl Counts {
    fn count(&self, begun: Instant, client: &str, result: Result<bool, String>) {
        self.requests.fetch_add(1, SeqCst);
        self.slowest_us.fetch_max(begun.elapsed().as_micros() as u64, SeqCst);
        match result {
            Ok(true) => drop(self.closes.fetch_add(1, SeqCst)),
            Ok(false) => {}
            Err(why) => {
                self.failed.fetch_add(1, SeqCst);
                let mut failures = self.failures.lock().unwrap();
                if failures.len() < 10 {
                    failures.push(format!("{client}: {why}"));
                }
            }
        }
    }
}

async fn client(address: String, number: u64, pause: Duration, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    let mut connection: Option<BufReader<TcpStream>> = None;
    let mut sent = 0u64;
    while !stop.load(SeqCst) {
        let begun = Instant::now();
        let user = (number << 32) + sent % 50;
        sent += 1;
        let fresh = connection.is_none();
        let result = exchange(&mut connection, &address, user, number % 2 == 1).await;
        if !matches!(result, Ok(false)) {
            connection = None;
        }
        let what = if fresh { "fresh connection" } else { "kept connection" };
        counts.count(begun, &format!("client {number}, {what}"), result);
        tokio::time::sleep(pause).await;
    }
}

/// One request and its answer; whether the connection is not to be used again.
async fn exchange(
    connection: &mut Option<BufReader<TcpStream>>,
    address: &str,
    user: u64,
    post: bool,
) -> Result<bool, String> {
    let told = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    if connection.is_none() {
        let stream = TcpStream::connect(address).await.map_err(told("connect"))?;
        stream.set_nodelay(true).map_err(told("connect"))?;
        *connection = Some(BufReader::new(stream));
    }
    let stream = connection.as_mut().expect("it was made");
    let body = "b".repeat(if post { 300 } else { 0 });
    let (method, length) =
        if post { ("POST", format!("content-length: {}\r\n", body.len())) } else { ("GET", String::new()) };
    let request = format!("{method} /{user} HTTP/1.1\r\nhost: x\r\nx-user-id: {user}\r\n{length}\r\n{body}");
    stream.write_all(request.as_bytes()).await.map_err(told("write"))?;
    let answered = tokio::time::timeout(Duration::from_secs(20), answer(stream)).await;
    let (close, text) = answered.map_err(|_| "no answer within 20 s".to_owned())??;
    let seen: serde_json::Value = serde_json::from_slice(&text).map_err(|e| format!("the body is not whole: {e}"))?;
    if seen["path"] != format!("/{user}") || seen["body_len"] != body.len() {
        return Err(format!("the answer is another's: {seen}"));
    }
    Ok(close)
}

/// Reads an answer of status 200 to its end.
async fn answer(stream: &mut BufReader<TcpStream>) -> Result<(bool, Vec<u8>), String> {
    let (mut status, mut length, mut close) = (None, None, false);
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await.map_err(|e| format!("read: {e}"))?;
        if read == 0 {
            return Err("the connection was closed before the head was whole".to_owned());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match (status.is_none(), line.split_once(": ")) {
            (true, _) => status = Some(line),
            (false, Some(("content-length", n))) => length = n.parse().ok(),
            (false, Some(("connection", said))) => close = said == "close",
            (false, Some(_)) => {}
            (false, None) => break,
        }
    }
    let status = status.unwrap_or_default();
    let mut body = vec![0; length.ok_or("no length")?];
    stream.read_exact(&mut body).await.map_err(|e| format!("the body was cut: {e}"))?;
    match status.split(' ').nth(1) {
        Some("200") => Ok((close, body)),
        _ => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
    }
}

/// Requests of HTTP/2, four at a time over one connection. GOAWAY is no failure as long as every request is answered.
async fn http2(proxy: String, number: u64, counts: Arc<Counts>, stop: Arc<AtomicBool>) {
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let mut sent = 0u64;
    while !stop.load(SeqCst) {
        let some = (0..4).map(|_| {
            sent += 1;
            let (client, url) = (client.clone(), format!("{proxy}/{}", sent % 50));
            let counts = counts.clone();
            async move {
                let begun = Instant::now();
                let answer = client.get(&url).header("x-user-id", format!("h2-{number}-{sent}")).send().await;
                let result = match answer {
                    Ok(answer) if answer.status() == 200 => {
                        answer.bytes().await.map(|_| false).map_err(|e| format!("{e:?}"))
                    }
                    Ok(answer) => Err(format!("status {}", answer.status())),
                    Err(error) => Err(format!("{error:?}")),
                };
                counts.count(begun, "HTTP/2", result);
            }
        });
        futures::future::join_all(some.collect::<Vec<_>>()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
