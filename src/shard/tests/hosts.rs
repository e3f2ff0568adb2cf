//! What every host keeps: no event is lost whenever it comes, timers fire on a shard that has nothing else,
//! an idle shard sleeps, a stop is seen. One shard on the kernel's ring, without a watchdog.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::{catalog, fetch_within, frame, parts, records, recovered};
use crate::base::ids::{LaneId, ShardId};
use crate::base::queue::{self, Sender, Watch};
use crate::base::random::Random;
use crate::base::slab::Key;
use crate::control::DetachedControl;
use crate::metrics::Cells;
use crate::metrics::inventory::Metric;
use crate::ring::{Ring, Waker};
use crate::shard::Shard;
use crate::shard::host::{HostKind, Runner};
use crate::shard::mail::{Mail, Mailbox};
use crate::shard::storage::Storage;
use crate::shard::timers::Timers;
use crate::shard::worker::WorkerHandle;

/// What takes so long doesn't come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty group closes a new lane's journal so long after its start; then it has no timer left.
const LANE_SETTLES: Duration = Duration::from_millis(1500);

const HOSTS: &[HostKind] = &[
    HostKind::Plain,
    #[cfg(feature = "glommio")]
    HostKind::Glommio,
];

/// A shard that its host runs on a thread of its own.
struct Hosted {
    address: SocketAddr,
    mail: Sender<Mail>,
    waiting: Arc<Watch<Mail>>,
    waker: Waker,
    cells: &'static Cells,
    ended: mpsc::Receiver<()>,
    _data: tempfile::TempDir,
}

impl Hosted {
    fn start(kind: HostKind) -> Self {
        Self::start_with(kind, move || Runner::new(kind).expect("the tests' machine has locked memory"))
    }

    fn start_with(kind: HostKind, runner: impl FnOnce() -> Runner + Send + 'static) -> Self {
        let data = tempfile::tempdir().expect("the tests' machine has a directory for them");
        let dir = data.path().to_path_buf();
        let cells = Cells::leaked();
        let (mail, receiver) = queue::channel(8);
        let waiting = Arc::new(receiver.watch());
        let (ready_sender, ready) = mpsc::channel();
        let (ended_sender, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let mut ring = Ring::kernel(&kind.ring_options()).expect("the tests' machine has io_uring");
            let runner = runner();
            let lane = recovered(&mut ring, dir, LaneId(0), Storage::token_owner(0));
            let storage = Storage::new(ShardId(0), vec![lane], WorkerHandle::new().0);
            let (listener, address) =
                ring.listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("the kernel finds a port");
            let waker = ring.waker();
            let control = DetachedControl::default();
            let mailbox = Mailbox::new(ShardId(0), vec![None], vec![receiver]);
            let known = (catalog(&records(1, 1)), control.handle(0));
            let mut shard = Shard::new(parts(ShardId(0), ring, vec![listener], storage, known, mailbox));
            // What comes again and again would hide that something else was lost.
            shard.core.timers = Timers::default();
            ready_sender.send((address, waker)).expect("the test waits for it");
            runner.run(&mut shard, cells);
            ended_sender.send(()).ok();
        });
        let (address, waker) = ready.recv().expect("the shard starts");
        Self { address, mail, waiting, waker, cells, ended, _data: data }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("the shard listens");
        client.set_nodelay(true).expect("a TCP socket");
        client.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        client
    }

    /// Mail that changes nothing.
    fn post(&mut self) {
        let nobody = Key::from_u56(u64::MAX);
        assert!(self.mail.try_send(Mail::Progress { request: nobody }).is_ok(), "it takes its mail");
        self.waker.wake();
    }

    fn until_mail_is_taken(&self) {
        let began = Instant::now();
        while !self.waiting.is_empty() {
            assert!(began.elapsed() < PATIENCE, "mail was lost");
            std::thread::yield_now();
        }
    }

    fn stop(mut self) {
        assert!(self.mail.try_send(Mail::Stop).is_ok());
        self.waker.wake();
        self.ended.recv_timeout(PATIENCE).expect("the stop is seen");
    }

    fn turns(&self) -> u64 {
        self.cells.get(Metric::Turns)
    }
}

fn on_each_host(check: impl Fn(Hosted)) {
    for kind in HOSTS {
        println!("{kind:?}");
        check(Hosted::start(*kind));
    }
}

fn api_versions() -> Vec<u8> {
    frame((18, 3), |writer| {
        writer.string("test");
        writer.string("1");
        writer.no_tagged_fields();
    })
}

fn read_answer(mut client: &TcpStream, what: &str) {
    let mut length = [0; 4];
    client.read_exact(&mut length).unwrap_or_else(|error| panic!("{what} was lost: {error}"));
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    client.read_exact(&mut answer).unwrap_or_else(|error| panic!("{what} was lost: {error}"));
}

/// Mail, requests in one piece or two, and waits, one or several at random moments; then all must have been
/// seen before the next: nothing later covers for what is lost.
fn events_at_random_moments(mut hosted: Hosted, events_count: u64) {
    const SEED: u64 = 12;
    let mut random = Random::new(SEED);
    let (asking, waiting) = (hosted.connect(), hosted.connect());
    let (ask, mut left) = (api_versions(), events_count);
    while left > 0 {
        let (mails, asks) = (random.chance(1, 2), random.chance(1, 2));
        let waits = random.chance(1, 64) || !(mails || asks);
        left = left.saturating_sub(u64::from(mails) + u64::from(asks) + u64::from(waits));
        if waits {
            let wait_ms = 1 + random.below(3) as i32;
            (&waiting).write_all(&fetch_within(wait_ms, 1 << 20, 0, 0)).expect("connected");
        }
        pause(&mut random);
        if mails {
            hosted.post();
        }
        pause(&mut random);
        if asks {
            let cut = random.below(ask.len() as u64) as usize;
            (&asking).write_all(&ask[..cut]).expect("connected");
            pause(&mut random);
            (&asking).write_all(&ask[cut..]).expect("connected");
            read_answer(&asking, "a request");
        }
        if mails {
            hosted.until_mail_is_taken();
        }
        if waits {
            read_answer(&waiting, "a timer");
        }
    }
    drop((asking, waiting));
    hosted.stop();
}

/// From nothing to beyond what a shard needs to fall asleep.
fn pause(random: &mut Random) {
    let spins_max = [1, 100, 2_000, 40_000][random.below(4) as usize];
    for _ in 0..random.below(spins_max) {
        std::hint::spin_loop();
    }
}

#[test]
fn no_event_at_a_random_moment_is_lost() {
    let asked = std::env::var("CORELANE_EVENTS").ok().map(|count| count.parse().expect("a number"));
    on_each_host(|hosted| events_at_random_moments(hosted, asked.unwrap_or(20_000)));
}

#[test]
fn an_idle_shard_sleeps_until_its_timer() {
    on_each_host(|hosted| {
        let client = hosted.connect();
        (&client).write_all(&api_versions()).expect("connected");
        read_answer(&client, "a request");
        std::thread::sleep(LANE_SETTLES);
        let before = hosted.turns();
        (&client).write_all(&fetch_within(500, 1 << 20, 0, 0)).expect("connected");
        read_answer(&client, "a timer");
        let turns = hosted.turns() - before;
        assert!(turns < 30, "{turns} turns for a request and a timer");
        let before = hosted.turns();
        std::thread::sleep(Duration::from_millis(300));
        // It may have had a turn to finish.
        let turns = hosted.turns() - before;
        assert!(turns < 10, "{turns} turns with nothing to do");
        drop(client);
        hosted.stop();
    });
}

#[test]
fn a_stop_ends_an_idle_shard_and_one_whose_client_is_there() {
    on_each_host(Hosted::stop);
    on_each_host(|hosted| {
        let mut client = hosted.connect();
        client.write_all(&api_versions()).expect("connected");
        read_answer(&client, "a request");
        hosted.stop();
        assert_eq!(client.read(&mut [0]).expect("the connection ends in order"), 0);
    });
}

/// With this timer glommio 0.9.0 parks with runnable tasks, for good; the watchdog's means bring it back.
#[cfg(feature = "glommio")]
#[test]
fn an_executor_that_parks_with_a_runnable_task_is_woken() {
    use crate::shard::glommio_host::Executor;
    use std::sync::atomic::{AtomicU64, Ordering};

    const PREEMPT_AFTER: Duration = Duration::from_micros(20);
    let start = || {
        Hosted::start_with(HostKind::Glommio, || {
            Runner::Glommio(Executor::preempting(PREEMPT_AFTER).expect("as in other tests"))
        })
    };
    // One that parks before its task ran at all can't be woken, for nobody has a waker of it.
    let begins = |hosted: &Hosted| {
        let began = Instant::now();
        while hosted.turns() == 0 && began.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        hosted.turns() > 0
    };
    let hosted = std::iter::repeat_with(start).take(10).find(begins).expect("one in two begins");
    let (waker, cells, waiting) = (hosted.waker.clone(), hosted.cells, hosted.waiting.clone());
    let wakes_count = Arc::new(AtomicU64::new(0));
    let counted = wakes_count.clone();
    std::thread::spawn(move || {
        loop {
            let turns = cells.get(Metric::Turns);
            std::thread::sleep(Duration::from_millis(10));
            if turns == cells.get(Metric::Turns) && (!waiting.is_empty() || waker.has_work()) {
                waker.wake_by_force();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    events_at_random_moments(hosted, 10_000);
    println!("woken {} times", wakes_count.load(Ordering::Relaxed));
}
