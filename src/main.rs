//! The `mainstay` command.
#![allow(clippy::print_stdout, clippy::print_stderr)]
use std::process::ExitCode;

use mainstay::config::Document;
use mainstay::supervise;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let args: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match args[..] {
        [supervise::INIT_COMMAND, spec] => return supervise::run_init(spec),
        [supervise::FENCER_COMMAND, daemon] => return supervise::run_fencer(daemon),
        ["secret", "new"] => {
            println!("{}", mainstay_sync::transport::Secret::generate().reveal());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let config =
        args.iter().position(|a| *a == "--config").map(|i| std::path::PathBuf::from(args[i + 1]));
    let document = match Document::load(
        config.as_deref(),
        std::env::vars().filter(|(n, _)| n != "MAINSTAY_LOG"),
    ) {
        Ok(d) => d,
        Err(e) => {
            eprintln!("error: {e}");
            return ExitCode::FAILURE;
        }
    };
    let rt = tokio::runtime::Runtime::new().unwrap();
    let r: anyhow::Result<()> = rt.block_on(async {
        match args[0] {
            "run" => Ok(mainstay::replica::run(document.run()?).await?),
            "ambassador" => {
                let (cluster, ambassador) = document.ambassador()?;
                let _p = mainstay::proxy::Proxy::start(&ambassador, &cluster, Default::default()).await?;
                std::future::pending().await
            }
            "status" => {
                let c = mainstay::coordination::connect(&document.cluster()?).await?;
                let v = mainstay_election::view::View::parse(&c.read().await?)?;
                let leader = v.leader.as_ref().map(|l| l.value.clone());
                let replicas: Vec<_> = v.replicas.values().map(|r| { let r = &r.value; serde_json::json!({"node": r.node, "role": r.role, "state": r.state, "position": r.position.to_string(), "lag_ops": r.lag.ops}) }).collect();
                println!("{}", serde_json::json!({"epoch": v.epoch.map_or(0, |e| e.value.epoch.0), "leader": leader.as_ref().map(|l| l.node.to_string()), "ready": leader.is_some_and(|l| l.ready), "replicas": replicas}));
                Ok(())
            }
            "export" => {
                Ok(())
            }
            other => anyhow::bail!("unknown {other}"),
        }
    });
    match r {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
