//! The command line of the origin: serve, import, and the keys.
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kv_schemas::claims::{Scope, StaffRole};
use origin::edges::Edges;
use origin::http::{App, Role, router};
use origin::import::{self, Format};
use origin::keys;
use origin::purge::Dispatcher;
use origin::store::{Settings, Store};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Parser)]
#[command(name = "origin", version, about = "Nextream's origin: writes, their purges, and what the edge reads")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API and delivers purges until it is stopped.
    Serve(Serve),
    /// Reads a file into the catalogue. Importing it again changes nothing.
    Import(Import),
    /// Makes the key pair that signs tokens. Never overwrites one.
    Keygen {
        /// Where the keys are kept.
        #[arg(long, env = "ORIGIN_KEYS")]
        keys: PathBuf,
    },
    /// Prints an admin token.
    Token {
        #[arg(long, env = "ORIGIN_KEYS")]
        keys: PathBuf,
        /// Who acts; stands in the purge log.
        #[arg(long)]
        subject: String,
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Seconds, at most 30 days.
        #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
        lifetime_s: u64,
    },
    /// Prints a token for the edge's own pages.
    EdgeToken {
        #[arg(long, env = "ORIGIN_KEYS")]
        keys: PathBuf,
        #[arg(long, value_enum)]
        scope: ScopeArg,
        #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
        lifetime_s: u64,
    },
}

#[derive(Parser)]
struct Serve {
    #[arg(long, env = "ORIGIN_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    #[command(flatten)]
    store: Settings,
    #[arg(long, env = "ORIGIN_KEYS")]
    keys: PathBuf,
    /// Base URL of an edge; several are tried in turn, since all lead to one journal.
    #[arg(long, env = "ORIGIN_EDGE_URL", value_delimiter = ',')]
    edge_url: Vec<String>,
    /// What this process does.
    #[arg(long, env = "ORIGIN_ROLE", value_enum, value_delimiter = ',', default_value = "client,admin,jobs")]
    role: Vec<Role>,
    /// Log lines as JSON.
    #[arg(long, env = "ORIGIN_LOG_JSON")]
    log_json: bool,
}

#[derive(Parser)]
struct Import {
    file: PathBuf,
    #[command(flatten)]
    store: Settings,
    /// Told by the file's ending when not given.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value = "text")]
    report: ReportForm,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReportForm {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Viewer,
    Editor,
    Admin,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    Debug,
    Metrics,
    PurgeRequest,
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    #[error("cannot open the database {0}: {1}; is it there, and may this user write there?")]
    Open(String, origin::error::StoreError),
    #[error(transparent)]
    Import(#[from] import::ImportError),
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, std::io::Error),
    #[error("the service ended: {0}")]
    Serve(std::io::Error),
    #[error("cannot make an HTTP client: {0}")]
    Client(reqwest::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("the report cannot be printed: {0}")]
    Report(#[from] serde_json::Error),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("origin: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Serve(serve) => serve_api(serve).await,
        Command::Import(arguments) => import_file(arguments).await,
        Command::Keygen { keys } => Ok(keys::generate(&keys)?),
        Command::Token { keys, subject, role, lifetime_s } => {
            let role = match role {
                RoleArg::Viewer => StaffRole::Viewer,
                RoleArg::Editor => StaffRole::Editor,
                RoleArg::Admin => StaffRole::Admin,
            };
            println!("{}", keys::load(&keys)?.admin_token(&subject, role, lifetime_s)?);
            Ok(())
        }
        Command::EdgeToken { keys, scope, lifetime_s } => {
            let scope = match scope {
                ScopeArg::Debug => Scope::Debug,
                ScopeArg::Metrics => Scope::Metrics,
                ScopeArg::PurgeRequest => Scope::PurgeRequest,
            };
            println!("{}", keys::load(&keys)?.edge_token(scope, None, lifetime_s)?);
            Ok(())
        }
    }
}

async fn open(settings: &Settings) -> Result<Store, CliError> {
    Store::connect(settings).await.map_err(|error| CliError::Open(settings.place(), error))
}

async fn serve_api(arguments: Serve) -> Result<(), CliError> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if arguments.log_json {
        log.json().init()
    } else {
        log.with_target(false).init()
    }
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
    let keys = Arc::new(keys::load(&arguments.keys)?);
    let store = open(&arguments.store).await?;
    let listener = tokio::net::TcpListener::bind(arguments.listen).await;
    let listener = listener.map_err(|error| CliError::Listen(arguments.listen, error))?;
    let address = listener.local_addr().map_err(CliError::Serve)?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let edges = Arc::new(Edges::new(Arc::clone(&keys), &arguments.edge_url).map_err(CliError::Client)?);
    let mut jobs = tokio::task::JoinSet::new();
    if arguments.role.contains(&Role::Jobs) {
        let dispatcher = Dispatcher::new(store.clone(), Arc::clone(&keys), arguments.edge_url);
        jobs.spawn(dispatcher.map_err(CliError::Client)?.run(stopped.clone()));
        jobs.spawn(origin::schedule::run(store.clone(), stopped));
    }
    let app = App { store: store.clone(), keys, edges, metrics };
    tracing::info!("origin listening on http://{address}");
    let served = axum::serve(listener, router(app, &arguments.role)).with_graceful_shutdown(stop_signal()).await;
    let _ = stop.send(true);
    let _ = jobs.join_all().await;
    store.close().await;
    served.map_err(CliError::Serve)
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            let _ = interrupt.await;
            return;
        };
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
    tracing::info!("stopping");
}

async fn import_file(arguments: Import) -> Result<(), CliError> {
    let batch = import::read(&arguments.file, arguments.format)?;
    let store = open(&arguments.store).await?;
    let bar = ProgressBar::new(u64::try_from(batch.titles.len()).unwrap_or(0));
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} titles, {elapsed}") {
        bar.set_style(style);
    }
    let report = import::write(&store, batch, |done| bar.set_position(u64::try_from(done).unwrap_or(0))).await?;
    bar.finish_and_clear();
    store.close().await;
    match arguments.report {
        ReportForm::Text => print!("{report}"),
        ReportForm::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}
