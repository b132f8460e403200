//! One run: processes on one disk, and what is known about them from outside.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures::FutureExt as _;
use switchback::config::{self, Settings};
use switchback::control::{Control, View};
use switchback::model::Event;
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::Instant;

use super::calls::{Call, Look};
use super::disk::Disk;
use crate::dice::Dice;

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:0"]
[tenants]
identify = [{ header = "x-tenant-id" }]
[services.api]
match = [{ path = "/api" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:7001"] }, "2" = { endpoints = ["127.0.0.1:7002"] } }
[services.shop]
match = [{ path = "/" }]
baseline = "1"
versions = { "1" = { endpoints = ["127.0.0.1:7003"] }, "2" = { endpoints = ["127.0.0.1:7004"] } }
"#;

/// The services of the file.
pub const SERVICES: [&str; 2] = ["api", "shop"];

/// Lines that a story which fails is told with.
const LINES: usize = 60;

/// What the file says.
pub fn settings() -> Settings {
    config::parse(FILE, Path::new("/etc/sim.toml"), &|_| None).expect("a good file")
}

/// A process of the machine, from outside.
pub struct Process {
    pub id: usize,
    pub alive: Cell<bool>,
    /// Whether new connections of clients come to it.
    pub open: Cell<bool>,
    /// Whether another process may ask it to hand over.
    pub post: Cell<bool>,
    /// Whether another process has taken over from it.
    pub follows: Cell<bool>,
    /// Whether another process may have written while this one was a writer too, or was paused.
    pub disturbed: Cell<bool>,
    /// What it did last as far as it was looked at.
    pub seen: RefCell<Option<Arc<View>>>,
    /// What it told those who listen.
    pub told: RefCell<Vec<Arc<Event>>>,
    control: RefCell<Option<Control>>,
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Process {
    /// The door to its state, when it has loaded it and lives.
    pub fn control(&self) -> Option<Control> {
        self.control.borrow().clone().filter(|_| self.alive.get())
    }

    /// Whether it may change something.
    pub fn is_writer(&self) -> bool {
        self.alive.get() && !self.follows.get()
    }
}

pub struct World {
    pub dice: Rc<RefCell<Dice>>,
    pub disk: Arc<Disk>,
    pub processes: RefCell<Vec<Rc<Process>>>,
    pub calls: RefCell<Vec<Call>>,
    pub looks: RefCell<Vec<Look>>,
    /// Nothing fails any more, and nobody changes anything.
    pub calm: Cell<bool>,
    /// Everybody goes home.
    pub over: Cell<bool>,
    pub settings: Settings,
    turn: Cell<u64>,
    since: Instant,
    tasks: RefCell<Vec<JoinHandle<()>>>,
    log: RefCell<VecDeque<String>>,
    digest: Cell<u64>,
    failure: RefCell<Option<String>>,
}

impl World {
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            dice: Rc::new(RefCell::new(Dice::new(seed))),
            disk: Disk::new(seed ^ 0xd15c),
            processes: RefCell::default(),
            calls: RefCell::default(),
            looks: RefCell::default(),
            calm: Cell::default(),
            over: Cell::default(),
            settings: settings(),
            turn: Cell::default(),
            since: Instant::now(),
            tasks: RefCell::default(),
            log: RefCell::default(),
            digest: Cell::default(),
            failure: RefCell::default(),
        })
    }

    /// A moment of its own.
    pub fn turn(&self) -> u64 {
        self.turn.set(self.turn.get() + 1);
        self.turn.get()
    }

    /// Makes a process, which has no state yet.
    pub fn process(&self) -> Rc<Process> {
        let mut processes = self.processes.borrow_mut();
        let process = Rc::new(Process {
            id: processes.len(),
            alive: Cell::new(true),
            open: Cell::default(),
            post: Cell::default(),
            follows: Cell::default(),
            disturbed: Cell::default(),
            seen: RefCell::default(),
            told: RefCell::default(),
            control: RefCell::default(),
            tasks: RefCell::default(),
        });
        processes.push(process.clone());
        process
    }

    /// Something that goes on until it ends, or until the process that does it dies.
    pub fn spawn(&self, of: Option<&Process>, what: impl Future<Output = ()> + 'static) {
        let task = spawn_local(what);
        if let Some(process) = of {
            process.tasks.borrow_mut().push(task.abort_handle());
        }
        self.tasks.borrow_mut().push(task);
    }

    /// The process has its state: its writer runs.
    pub fn began(&self, process: &Rc<Process>, control: Control, writer: JoinHandle<()>) {
        let (told, mut events) = (process.clone(), control.subscribe());
        process.tasks.borrow_mut().push(writer.abort_handle());
        self.tasks.borrow_mut().push(writer);
        *process.control.borrow_mut() = Some(control);
        let listen = async move {
            while let Ok(event) = events.recv().await {
                told.told.borrow_mut().push(event);
            }
        };
        self.spawn(Some(process), listen);
    }

    /// The process is killed wherever it stands.
    pub fn kill(&self, process: &Process, why: &str) {
        self.tell(format!("process {} ends: {why}", process.id));
        process.alive.set(false);
        process.open.set(false);
        process.post.set(false);
        process.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
        process.control.take();
    }

    pub fn living(&self) -> Vec<Rc<Process>> {
        self.processes.borrow().iter().filter(|process| process.alive.get()).cloned().collect()
    }

    pub fn tell(&self, what: String) {
        let line = format!("{:>7} ms  {what}", self.since.elapsed().as_millis());
        let hash =
            line.bytes().fold(self.digest.get(), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        self.digest.set(hash);
        let mut log = self.log.borrow_mut();
        log.push_back(line);
        if log.len() > LINES {
            log.pop_front();
        }
    }

    /// What was told, as a number: the same story has the same.
    pub fn digest(&self) -> u64 {
        self.digest.get()
    }

    /// Notes that a promise is broken. The first one is what counts; a task cannot end the story, so the story looks.
    pub fn fail(&self, why: String) {
        let log: Vec<_> = self.log.borrow().iter().cloned().collect();
        self.failure.borrow_mut().get_or_insert_with(|| format!("{why}\nafter\n{}", log.join("\n")));
    }

    pub fn check(&self, holds: bool, why: impl FnOnce() -> String) {
        if !holds {
            self.fail(why());
        }
    }

    /// Ends the story when a promise is broken or a task has panicked.
    pub fn look_for_failures(&self) {
        let mut panicked = None;
        self.tasks.borrow_mut().retain_mut(|task| {
            let ended = task.is_finished().then(|| task.now_or_never()).flatten();
            if let Some(Err(error)) = &ended
                && error.is_panic()
            {
                panicked = Some("a task panicked; its message stands above");
            }
            ended.is_none()
        });
        if let Some(why) = panicked {
            self.fail(why.to_owned());
        }
        let failure = self.failure.borrow_mut().take();
        if let Some(failure) = failure {
            panic!("{failure}");
        }
    }
}
