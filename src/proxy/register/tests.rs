//! Registered at a real coordinator, a file.

use mainstay_ambassador::{Address, Moment, RouteConfig, Settings, Source};
use mainstay_election::view::View;
use mainstay_election::{CoordinationAddress, EtcdOptions, connect};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the key says what `is_so` wants to hear.
async fn says(
    coordinator: &Arc<dyn Coordinator>,
    what: &str,
    is_so: impl Fn(Option<&values::Ambassador>) -> bool,
) {
    let seen = async {
        loop {
            let view = View::parse(&coordinator.read().await.unwrap()).unwrap();
            if is_so(view.ambassadors.values().next().map(|stored| &stored.value)) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

#[tokio::test]
async fn it_says_by_which_word_it_holds_and_who_is_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.db");
    let address = CoordinationAddress::Sqlite { path };
    let ttl = Duration::from_secs(3600);
    let coordinator = connect(&address, &EtcdOptions::default(), "db", ttl).await.unwrap();

    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (word, source) = watch::channel(RouteState::unknown());
    let leads = |version, ready| RouteState {
        epoch: 1,
        leader: Some(service.local_addr().unwrap().into()),
        ready,
        trusted_until: Moment::now() + ttl,
        version,
        ..RouteState::unknown()
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    let route = RouteConfig::new("db", listen, Source::Leader(source.clone()));
    let settings = Settings { threads: 1, ..Settings::default() };
    let ambassador = Arc::new(Ambassador::start(settings, vec![route]).unwrap());
    let Some(Address::Tcp(door)) = ambassador.address("db") else { panic!("it listens") };
    word.send_replace(leads(5, true));
    let registration = Registration {
        coordinator: Arc::clone(&coordinator),
        ambassador: Arc::clone(&ambassador),
        source,
        ttl,
        id: id(),
        listen: "here".to_owned(),
    };
    let (end, ended) = watch::channel(false);
    let task = tokio::spawn(registration.keep(ended));
    says(&coordinator, "it forwards", |key| {
        key.is_some_and(|key| key.forwards && key.acts_on == 5 && key.open.is_none())
    })
    .await;
    let client = TcpStream::connect(door).await.unwrap();
    let (_served, _) = service.accept().await.unwrap();
    word.send_replace(leads(6, false));
    says(&coordinator, "it holds, and one is there", |key| {
        key.is_some_and(|key| !key.forwards && key.acts_on == 6 && key.open == Some(1))
    })
    .await;
    drop(client);
    drop(_served);
    says(&coordinator, "nobody is there", |key| key.is_some_and(|key| key.open == Some(0))).await;
    word.send_replace(leads(7, true));
    says(&coordinator, "it forwards again", |key| key.is_some_and(|key| key.forwards)).await;
    end.send_replace(true);
    timeout(PATIENCE, task).await.expect("it ends").unwrap();
    says(&coordinator, "its key is gone", |key| key.is_none()).await;
}
