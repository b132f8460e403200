//! Traces cost nothing while they are off, and nothing for requests that are not recorded: no allocation more. Stands alone
//! because it counts what the whole process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use switchback::app::App;
use switchback::config;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block comes from `alloc` above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests that are counted together.
const ROUND: u64 = 50;

/// Answers every request on every connection alike, without allocating.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4_096];
                while read_head(&mut stream, &mut buffer) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    address
}

/// Reads up to the end of a head; false when there is none any more.
fn read_head(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while !buffer[..filled].ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => return false,
            Ok(n) => filled += n,
        }
    }
    true
}

/// What one request costs in allocations, the least of many rounds: other threads allocate now and then, too.
async fn cost(backend: SocketAddr, tracing: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchback.toml");
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\nhandover = \"off\"\n{tracing}\n[admin]\nlisten = \"off\"\n\
         [services.shop]\nmatch = [{{ path = \"/\" }}]\nbaseline = \"1\"\n\
         [services.shop.versions.1]\nendpoints = [\"{backend}\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let app = App::start(config::load(&file).unwrap_or_else(|e| panic!("{e}"))).await.unwrap();
    let proxy = app.listen[0];
    let client = move || {
        let mut stream = TcpStream::connect(proxy).unwrap();
        let mut buffer = [0; 4_096];
        let mut round = || {
            let before = ALLOCATIONS.load(Relaxed);
            for _ in 0..ROUND {
                stream.write_all(b"GET /v1/orders HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                assert!(read_head(&mut stream, &mut buffer) && buffer.starts_with(b"HTTP/1.1 200"));
            }
            (ALLOCATIONS.load(Relaxed) - before) / ROUND
        };
        (0..40).map(|_| round()).min().unwrap()
    };
    let cost = tokio::task::spawn_blocking(client).await.unwrap();
    app.stop().await;
    cost
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_allocates_as_if_there_were_no_traces() {
    let backend = backend();
    // Nobody listens there; what becomes of spans has no part in this.
    let on = |sample| format!("[proxy.tracing]\nendpoint = \"http://127.0.0.1:1\"\nsample = {sample}");
    let off = cost(backend, "").await;
    let unrecorded = cost(backend, &on(0)).await;
    let recorded = cost(backend, &on(100)).await;
    println!("allocations of a request: {off} without traces, {unrecorded} not recorded, {recorded} recorded");
    assert_eq!(unrecorded, off);
    assert!(recorded > off, "the count counts");
}
