//! An etcd of its own for each test: on free ports of loopback, in a temporary directory, killed at the end. The black-box
//! tests use this file, too.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// A running etcd.
pub struct Etcd {
    directory: tempfile::TempDir,
    port: u16,
    peer_port: u16,
    /// Its name, and all members of its cluster.
    name: String,
    cluster: String,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Etcd {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_many(1, arguments).remove(0)
    }

    /// Starts a cluster of three.
    pub fn start_three() -> Vec<Self> {
        Self::start_many(3, &[])
    }

    fn start_many(count: usize, arguments: &[&str]) -> Vec<Self> {
        for _ in 0..5 {
            // Somebody else may take a port before etcd does; then it ends at once, and the next ones are tried.
            let listeners: Vec<_> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
            drop(listeners);
            let peer = |n: usize| format!("e{n}=http://127.0.0.1:{}", ports[2 * n + 1]);
            let cluster = (0..count).map(peer).collect::<Vec<_>>().join(",");
            let member = |n: usize| Self {
                directory: tempfile::tempdir().unwrap(),
                port: ports[2 * n],
                peer_port: ports[2 * n + 1],
                name: format!("e{n}"),
                cluster: cluster.clone(),
                arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
                child: None,
            };
            let mut members: Vec<_> = (0..count).map(member).collect();
            // None of them is ready before most of them are there.
            let started = std::thread::scope(|scope| {
                let starting: Vec<_> = members.iter_mut().map(|member| scope.spawn(|| member.launch())).collect();
                starting.into_iter().all(|member| member.join().unwrap())
            });
            if started {
                return members;
            }
        }
        panic!("etcd does not start");
    }

    /// Starts it again with what it had.
    pub fn restart(&mut self) {
        assert!(self.launch(), "etcd does not start again");
    }

    fn launch(&mut self) -> bool {
        let scheme = if self.arguments.iter().any(|a| a.starts_with("--cert-file")) { "https" } else { "http" };
        let (client, peer) = (self.url(scheme), format!("http://127.0.0.1:{}", self.peer_port));
        let mut child = Command::new("etcd")
            .args(["--name", &self.name, "--initial-cluster", &self.cluster])
            .args(["--data-dir".as_ref(), self.directory.path().join("data").as_os_str()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need the command etcd: install Debian's package etcd-server, or use tests/run");
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let mut all = String::new();
        while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
            if line.contains("ready to serve client requests") || line.contains("serving client") {
                // Whoever writes into a pipe that nobody reads stops one day.
                std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::sink()));
                self.child = Some(child);
                return true;
            }
            all.push_str(&line);
            line.clear();
        }
        eprintln!("etcd ended: {all}");
        let _ended = child.wait();
        false
    }

    /// Its address.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a loss of power would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }

    /// Removes all that it has while it does not run.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
    }

    /// Stops it without ending it: connections stay, and nothing is answered.
    pub fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
