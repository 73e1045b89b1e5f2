//! Thousands of idle clients, and too few descriptors. Alone in its process: descriptors are
//! counted per process, and the limit is changed in a child only.

#![allow(clippy::print_stderr, clippy::print_stdout)] // what was skipped, and children that report

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mainstay_ambassador::{Ambassador, Moment, RouteConfig, RouteState, Settings, Source};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(120);
const ROLE: &str = "MAINSTAY_CROWD_ROLE";
const CROWD: &str = "MAINSTAY_CROWD_ORDERS";

fn start(target: SocketAddr) -> (watch::Sender<RouteState>, Ambassador, SocketAddr) {
    let (says, hears) = watch::channel(RouteState {
        epoch: 1,
        leader: Some(target.into()),
        ready: true,
        trusted_until: Moment::now() + Duration::from_secs(3600),
        ..RouteState::unknown()
    });
    let listen = "127.0.0.1:0".parse().expect("an address");
    let mut config = RouteConfig::new("db", listen, Source::Leader(hears));
    config.hold.max = 10_000;
    let settings = Settings { threads: 2, ..Settings::default() };
    let ambassador = Ambassador::start(settings, vec![config]).expect("the proxy starts");
    let Some(mainstay_ambassador::Address::Tcp(at)) = ambassador.address("db") else {
        panic!("the route listens on TCP")
    };
    (says, ambassador, at)
}

fn connect(to: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(to).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"ping").expect("sent");
    let mut pong = [0; 4];
    client.read_exact(&mut pong).expect("the echo");
    assert_eq!(&pong, b"ping");
}

/// This very test program again, for one test and role, with its standard streams at hand.
struct Role(Child);

impl Role {
    fn start(test: &str, role: &str, orders: &str) -> Role {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(CROWD, orders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        Role(child)
    }

    fn is(role: &str) -> bool {
        std::env::var(ROLE).is_ok_and(|is| is == role)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads what stands between two marks, among what the test harness prints.
fn word(role: &mut Role) -> String {
    let mut out = role.0.stdout.take().expect("piped");
    let mut said = String::new();
    let mut byte = [0];
    while said.matches('@').count() < 2 {
        assert_eq!(out.read(&mut byte).expect("readable"), 1, "the child ended: {said}");
        said.push(char::from(byte[0]));
    }
    role.0.stdout = Some(out);
    said.split('@').nth(1).expect("between two marks").to_owned()
}

/// Where a role listens.
fn port(role: &mut Role) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], word(role).parse().expect("a port")))
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    write!(out, "@{word}@").and_then(|()| out.flush()).expect("the parent listens");
}

/// An echo service for thousands, on one thread; until its standard input ends.
fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop").block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(4096).expect("listening");
        let port = listener.local_addr().expect("bound").port();
        say(&port.to_string());
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            std::process::exit(0);
        });
        while let Ok((mut conn, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = conn.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The child: connects as many clients as it is told to, has each served once, and says so. Then
/// they are silent, until all of them are cut.
fn crowd() {
    let told = std::env::var(CROWD).expect("its orders");
    let (at, clients) = told.split_once(' ').expect("where and how many");
    let at = at.parse().expect("an address");
    let mut crowd: Vec<TcpStream> =
        (0..clients.parse().expect("a number")).map(|_| connect(at)).collect();
    crowd.iter_mut().for_each(echo);
    say("silent");
    for client in &mut crowd {
        let ended = client.read(&mut [0]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    say("cut");
}

/// 10,000 clients connected and silent: all are served, and each costs a few KiB at most.
#[test]
fn ten_thousand_idle_clients() {
    const TEST: &str = "ten_thousand_idle_clients";
    const CLIENTS: u64 = 10_000;
    if Role::is("service") {
        return serve();
    }
    if Role::is("crowd") {
        return crowd();
    }
    // The proxy needs two descriptors for each, and some for itself.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let clients = CLIENTS.min((limit.unwrap_or(u64::MAX).saturating_sub(600)) / 2);
    if clients < CLIENTS {
        eprintln!("SKIPPED: {TEST}: {CLIENTS} need 20,600 descriptors; testing with {clients}");
    }
    let mut service = Role::start(TEST, "service", "");
    let (says, ambassador, at) = start(port(&mut service));
    echo(&mut connect(at));
    let before_kib = resident_kib();
    let mut crowd = Role::start(TEST, "crowd", &format!("{at} {clients}"));
    assert_eq!(word(&mut crowd), "silent");
    let each_kib = resident_kib().saturating_sub(before_kib) as f64 / clients as f64;
    let open = ambassador.stats().total.open_now;
    assert!(open >= clients, "{open} open");
    println!("{each_kib:.1} KiB each, of {clients}");
    assert!(each_kib <= 8.0, "{each_kib} KiB of memory for each idle client");
    // One newcomer is served as ever, and all are cut together.
    echo(&mut connect(at));
    drop(says);
    drop(ambassador);
    assert_eq!(word(&mut crowd), "cut");
}

/// No descriptor left in the proxy's process: its clients wait in the kernel's queue, accepting
/// does not spin meanwhile, and all are served once there are descriptors again.
#[test]
fn out_of_descriptors() {
    const TEST: &str = "out_of_descriptors";
    if Role::is("proxy") {
        return starve();
    }
    let mut proxy = Role::start(TEST, "proxy", "");
    let at = port(&mut proxy);
    let mut crowd: Vec<TcpStream> = (0..20).map(|_| connect(at)).collect();
    drop(proxy.0.stdin.take()); // starves for a while, then reports and serves
    for client in &mut crowd {
        let mut hi = [0; 2];
        client.read_exact(&mut hi).expect("served, and not dropped");
        assert_eq!(&hi, b"hi");
    }
    drop(crowd);
    let mut said = String::new();
    proxy.0.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    let number = |mark: &str| -> u64 {
        let text = said.split(mark).nth(1).and_then(|rest| rest.split(';').next());
        text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {mark} in {said}"))
    };
    // Each of two listeners pauses for 100 ms at a time; one that spins fails many thousand times.
    let (paused, wall_ms) = (number("paused="), number("wall_ms="));
    assert!(paused >= 2, "accepting never ran out: {said}");
    assert!(paused <= 10 + 2 * wall_ms / 100, "accepting spins: {said}");
}

/// The child: the proxy, its service, and somebody who leaves no descriptor to either.
fn starve() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let service = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (_says, ambassador, at) = start(service.local_addr().expect("bound"));
    let limit = Rlimit { current: Some(200), maximum: Some(200) };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let began = Instant::now();
    say(&at.port().to_string());
    let _ = std::io::stdin().read(&mut [0]);
    // All of the crowd is in the queues; some failures to accept are wanted.
    while ambassador.stats().accept_paused < 8 {
        assert!(began.elapsed() < PATIENCE, "accepting does not fail");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (paused, wall_ms) = (ambassador.stats().accept_paused, began.elapsed().as_millis());
    println!("paused={paused};wall_ms={wall_ms};");
    drop(hoard);
    for _ in 0..20 {
        let (mut conn, _) = service.accept().expect("a client of the proxy");
        conn.write_all(b"hi").expect("sent");
    }
    while ambassador.stats().total.open_now > 0 {
        assert!(began.elapsed() < PATIENCE, "the clients do not leave");
        std::thread::sleep(Duration::from_millis(10));
    }
}
