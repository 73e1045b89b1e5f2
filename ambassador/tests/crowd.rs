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
    fn start(test: &str, role: &str) -> Role {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
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

/// Reads "@PORT@" from among what the test harness prints.
fn port(role: &mut Role) -> SocketAddr {
    let mut out = role.0.stdout.take().expect("piped");
    let mut said = String::new();
    let mut byte = [0];
    while said.matches('@').count() < 2 {
        assert_eq!(out.read(&mut byte).expect("readable"), 1, "the child ended: {said}");
        said.push(char::from(byte[0]));
    }
    role.0.stdout = Some(out);
    let port = said.split('@').nth(1).expect("between two marks");
    SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
}

/// An echo service for thousands, on one thread; until its standard input ends.
fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("an event loop").block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(4096).expect("listening");
        let port = listener.local_addr().expect("bound").port();
        let mut out = std::io::stdout();
        write!(out, "@{port}@").and_then(|()| out.flush()).expect("the parent listens");
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

/// 5,000 clients connected and silent: all are served, and each costs a few KiB at most.
#[test]
fn five_thousand_idle_clients() {
    const TEST: &str = "five_thousand_idle_clients";
    if Role::is("service") {
        return serve();
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let clients = if limit.is_none_or(|limit| limit >= 16_000) { 5000 } else { 200 };
    if clients < 5000 {
        eprintln!("SKIPPED: {TEST}: 5,000 need 16,000 descriptors; testing with {clients}");
    }
    let mut service = Role::start(TEST, "service");
    let (_says, ambassador, at) = start(port(&mut service));
    let mut crowd: Vec<TcpStream> = Vec::with_capacity(clients);
    echo(&mut connect(at));
    let before_kib = resident_kib();
    for _ in 0..clients {
        crowd.push(connect(at));
    }
    for client in &mut crowd {
        echo(client);
    }
    let each_kib = resident_kib().saturating_sub(before_kib) / clients as u64;
    let open = ambassador.stats().total.open_now;
    assert!(open >= clients as u64, "{open} open");
    println!("{each_kib} KiB each");
    assert!(each_kib <= 8, "{each_kib} KiB of memory for each idle client");
    // One newcomer is served as ever, and all are cut together.
    echo(&mut connect(at));
    drop(_says);
    drop(ambassador);
    for client in &mut crowd {
        let ended = client.read(&mut [0]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}

/// No descriptor left in the proxy's process: its clients wait in the kernel's queue, accepting
/// does not spin meanwhile, and all are served once there are descriptors again.
#[test]
fn out_of_descriptors() {
    const TEST: &str = "out_of_descriptors";
    if Role::is("proxy") {
        return starve();
    }
    let mut proxy = Role::start(TEST, "proxy");
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
    let mut out = std::io::stdout();
    write!(out, "@{}@", at.port()).and_then(|()| out.flush()).expect("the parent listens");
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
