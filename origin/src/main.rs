//! The command line of the origin: serve, import, and the keys.
use axum::Router;
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kv_schemas::claims::{Scope, StaffRole};
use kv_schemas::edge_secret::EdgeSecret;
use origin::auth::password::{Cost, Hasher};
use origin::auth::{self, Auth, Unproven};
use origin::edges::Edges;
use origin::error::StoreError;
use origin::export;
use origin::generate;
use origin::http::jwks::MAX_AGE_S;
use origin::http::shed::{Gates, Limit};
use origin::http::{App, Role, router};
use origin::import::mongo::Mapping;
use origin::import::{self, Format, Present};
use origin::keys::{self, TOKEN_LIFETIME_S_MAX};
use origin::purge::Dispatcher;
use origin::rendered::Rendered;
use origin::store::backup::BackupError;
use origin::store::{Settings, Store};
use origin::sweep::Retention;
use origin::warm::{InUse, Warmer};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How long jobs may take to end, once they are told to.
const JOBS_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Invitations of one transaction.
const INVITATIONS: u32 = 500;

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
    /// Reads a file into the catalogue. What the file has and the catalogue has otherwise becomes as the file has it, editors'
    /// changes and deletions included. Fails if nothing of the file could be taken; what else was refused is listed.
    Import(Import),
    /// Writes everything there is to a file of JSON lines, while the service runs. Who was logged in is not kept. The file has
    /// its name once it is whole; until then it ends in `.partial`.
    Backup {
        #[command(flatten)]
        store: Settings,
        /// Must not be there yet.
        #[arg(long)]
        to: PathBuf,
    },
    /// Reads a backup into a new database, of either engine. Its purge log gets a new identity: everything is purged.
    Restore {
        #[command(flatten)]
        store: Settings,
        #[arg(long)]
        from: PathBuf,
    },
    /// Prints the catalogue as `import` reads it: one JSON object a line.
    Export {
        #[command(flatten)]
        store: Settings,
    },
    /// Brings a database of an older release up to date, as a start of `serve` does. The release before cannot use it after
    /// that: take a backup first, with its program.
    Migrate {
        #[command(flatten)]
        store: Settings,
    },
    /// Makes a large catalogue, the same for the same seed.
    Generate {
        #[command(flatten)]
        store: Settings,
        #[command(flatten)]
        amounts: generate::Amounts,
    },
    /// Makes the key pair that signs tokens. Never overwrites one.
    Keygen {
        /// Where the keys are kept.
        #[arg(long, env = "ORIGIN_KEYS")]
        keys: PathBuf,
    },
    /// The keys that sign tokens.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// The log of purges.
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Who may use the admin API.
    Staff {
        #[command(subcommand)]
        command: StaffCommand,
    },
    /// Viewers' accounts.
    Users {
        #[command(subcommand)]
        command: UsersCommand,
    },
    /// Prints an admin token.
    Token {
        #[arg(long, env = "ORIGIN_KEYS")]
        keys: PathBuf,
        /// Who acts; stands in the logs of purges and of changes. At most 200 bytes.
        #[arg(long, value_parser = subject)]
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

#[derive(Subcommand)]
enum KeysCommand {
    /// Publishes a new key, which signs from later on. Nobody is logged out, and no service needs a restart.
    Rotate {
        #[arg(long, env = "ORIGIN_KEYS")]
        keys: PathBuf,
        /// Where the purge of the published keys is logged.
        #[command(flatten)]
        store: Settings,
        /// Seconds until the new key signs. At least the lifetime of the published document, so that every verifier has it.
        #[arg(long, default_value_t = 2 * MAX_AGE_S, value_parser = clap::value_parser!(u64).range(MAX_AGE_S..=TOKEN_LIFETIME_S_MAX))]
        signs_in_s: u64,
    },
}

#[derive(Subcommand)]
enum LogCommand {
    /// Gives the log a new identity, while the service runs: the edge takes purges from this database from then on, from no
    /// other, and everything is purged. For a database that was put back, when the service says that the edge holds its log to be
    /// replaced.
    Renew {
        #[command(flatten)]
        store: Settings,
    },
}

#[derive(Subcommand)]
enum StaffCommand {
    /// Makes an account; the password is read from the first line of standard input. For the first admin: later ones are
    /// invited by those there are.
    Create {
        #[arg(long)]
        email: String,
        #[arg(long, value_enum, default_value = "admin")]
        role: RoleArg,
        #[command(flatten)]
        store: Settings,
    },
}

#[derive(Subcommand)]
enum UsersCommand {
    /// Makes one-time tokens with which viewers choose a password (`POST /auth/accept`): for those an import brought, who have
    /// none, and for those who forgot theirs. Prints one JSON object a line: `email`, `invitation`, `ends_at`.
    Invite {
        /// One viewer. An earlier invitation of hers is void.
        #[arg(long, required_unless_present = "without_password", conflicts_with = "without_password")]
        email: Option<String>,
        /// Every viewer who has no password and no open invitation; asked for again, those who let theirs pass.
        #[arg(long)]
        without_password: bool,
        /// How long an invitation may be taken up.
        #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=90))]
        valid_days: u16,
        #[command(flatten)]
        store: Settings,
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
    /// Base URL of an edge; several are tried in turn, since all lead to one journal. The role `jobs` delivers purges there, `admin`
    /// asks for receipts, `client` has documents fetched ahead.
    #[arg(long, env = "ORIGIN_EDGE_URL", value_delimiter = ',', value_parser = base_url)]
    edge_url: Vec<String>,
    /// What this process does.
    #[arg(long, env = "ORIGIN_ROLE", value_enum, value_delimiter = ',', default_value = "client,admin,auth,jobs")]
    role: Vec<Role>,
    /// What edge and origin share, at least 32 bytes: with it the edge proves what it says of a request, which is where it comes
    /// from, and what its viewer may see. Without it log-ins are throttled by account alone, and whoever reaches this service is
    /// believed what is said of viewers.
    #[arg(long, env = "ORIGIN_EDGE_SECRET", hide_env_values = true)]
    edge_secret: Option<String>,
    /// The one before, believed as well until every edge has the new one.
    #[arg(long, env = "ORIGIN_EDGE_SECRET_BEFORE", hide_env_values = true, requires = "edge_secret")]
    edge_secret_before: Option<String>,
    /// What becomes of requests that say something of their viewer without the edge's proof, where there is a secret: `refused`, or
    /// `counted` (and believed) until every edge has it.
    #[arg(long, env = "ORIGIN_UNPROVEN_VIEWERS", value_enum, default_value = "refused")]
    unproven_viewers: Unproven,
    /// Passwords that are hashed at once; each takes 64 MiB.
    #[arg(long, env = "ORIGIN_HASHES", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    hashes: u16,
    /// `<work>=<at once>/<waiting>/<wait in ms>`: what runs at the same time, what may queue for it, and how long; beyond that 503.
    /// Unless said otherwise client-read=64/256/1000, search=3/256/1000, client-write=16/128/1000, auth=48/64/2000, admin-read=16/64/2000,
    /// admin-write=8/64/5000, admin-wait=64/0/0 (receipts that are waited for).
    #[arg(long, env = "ORIGIN_LIMITS", value_delimiter = ',')]
    limit: Vec<Limit>,
    /// Memory for documents that were rendered, in MiB; 0: each is rendered anew.
    #[arg(long, env = "ORIGIN_RENDERED_MIB", default_value_t = 64)]
    rendered_mib: u64,
    /// After a purge the edge has, so many of the documents it touched are fetched by the edge ahead of viewers; 0: none.
    #[arg(long, env = "ORIGIN_WARM", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=1000))]
    warm: u16,
    #[command(flatten)]
    retention: Retention,
    /// Redis in which processes share what they rendered: redis://host:port/database.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// How long requests under way may take once the service is told to stop, in ms: as long as any may, and its answer's way.
    #[arg(long, env = "ORIGIN_DRAIN_MS", default_value_t = 12_000)]
    drain_ms: u64,
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
    #[arg(long = "from", alias = "format", value_enum)]
    format: Option<Format>,
    /// Which collection the file is of (mongoexport). The file's name without its ending when not given.
    #[arg(long)]
    collection: Option<String>,
    /// JSON: which field of the old system becomes which of this one (mongoexport).
    #[arg(long)]
    mapping: Option<PathBuf>,
    /// Leaves alone what is there, or was and is deleted, and takes the rest.
    #[arg(long)]
    only_new: bool,
    /// How the summary is printed.
    #[arg(long, value_enum, default_value = "text")]
    report: ReportForm,
}

/// What paths can be put behind.
fn base_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" if url.query().is_none() && url.fragment().is_none() => Ok(text.into()),
        "http" | "https" => Err("must have no query and no fragment".into()),
        _ => Err("must begin with http:// or https://".into()),
    }
}

/// What the audit log can be asked for.
fn subject(text: &str) -> Result<String, String> {
    match text.len() {
        1..=200 => Ok(text.into()),
        _ => Err("must have 1 to 200 bytes".into()),
    }
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

impl From<RoleArg> for StaffRole {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Editor => Self::Editor,
            RoleArg::Admin => Self::Admin,
        }
    }
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
    #[error("cannot open the database {0}: {1}")]
    Open(String, StoreError),
    #[error(transparent)]
    Import(#[from] import::ImportError),
    #[error("{0} is for MongoDB's exports; say --from mongoexport, or leave it out")]
    NotOfFormat(&'static str),
    #[error("nothing of {0} could be taken; why stands above")]
    NothingTaken(PathBuf),
    #[error(transparent)]
    Export(#[from] export::ExportError),
    #[error("{0}: {1}")]
    Backup(PathBuf, BackupError),
    #[error("--redis-url: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("cannot listen on {0}: {1}; choose another address with --listen")]
    Listen(SocketAddr, std::io::Error),
    #[error("the service ended: {0}")]
    Serve(std::io::Error),
    #[error("cannot make an HTTP client: {0}")]
    Client(reqwest::Error),
    #[error(transparent)]
    Staff(#[from] auth::accounts::CreateError),
    #[error(transparent)]
    Invite(#[from] auth::accounts::InviteError),
    #[error(transparent)]
    Store(StoreError),
    #[error("the password cannot be read: {0}")]
    Password(std::io::Error),
    #[error(transparent)]
    EdgeSecret(#[from] kv_schemas::edge_secret::SecretTooShort),
    #[error("passwords cannot be hashed: {0}")]
    Hash(#[from] origin::auth::password::HashError),
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
        Command::Backup { store, to } => back_up(&store, &to).await,
        Command::Restore { store, from } => restore(&store, &from).await,
        Command::Export { store } => export_catalogue(&store).await,
        Command::Migrate { store } => {
            Store::migrate(&store).await.map_err(|error| unopened(&store, error))?.close().await;
            println!("{} is up to date", store.place());
            Ok(())
        }
        Command::Generate { store, amounts } => generate_catalogue(&store, &amounts).await,
        Command::Keygen { keys } => Ok(keys::generate(&keys)?),
        Command::Keys { command: KeysCommand::Rotate { keys, store, signs_in_s } } => {
            let store = open_existing(&store).await?;
            let rotated = keys::rotate(&keys, signs_in_s)?;
            // After the files: whoever hears of the purge finds the new ones.
            let as_of = auth::accounts::log_rotation(&store, &rotated).await.map_err(CliError::Store)?;
            store.close().await;
            println!("{} signs from {} on; purge {as_of}", rotated.next, rotated.signs_from_s);
            Ok(())
        }
        Command::Log { command: LogCommand::Renew { store } } => {
            let store = open_existing(&store).await?;
            let as_of = store.replace_log().await.map_err(CliError::Store)?;
            store.close().await;
            println!("the purge log goes on as {as_of}");
            Ok(())
        }
        Command::Staff { command: StaffCommand::Create { email, role, store } } => {
            let store = open_existing(&store).await?;
            let mut password = String::new();
            std::io::stdin().read_line(&mut password).map_err(CliError::Password)?;
            let hasher = Hasher::new(Cost::RFC_9106, 1)?;
            let id = auth::accounts::create_staff(
                &store,
                &hasher,
                &email,
                role.into(),
                password.trim_end_matches(['\r', '\n']),
            );
            println!("{}", id.await?);
            store.close().await;
            Ok(())
        }
        Command::Users { command: UsersCommand::Invite { email, valid_days, store, .. } } => {
            let lifetime_ms = i64::from(valid_days) * 24 * 3600 * 1000;
            let store = open_existing(&store).await?;
            let mut after = String::new();
            loop {
                let (invitations, last) = match &email {
                    Some(email) => (vec![auth::accounts::invite_viewer(&store, email, lifetime_ms).await?], None),
                    None => auth::accounts::invite_viewers(&store, &after, INVITATIONS, lifetime_ms).await?,
                };
                // Committed first: what is printed is good.
                for invitation in invitations {
                    println!("{}", serde_json::to_string(&invitation)?);
                }
                let Some(last) = last else { break };
                after = last;
            }
            store.close().await;
            Ok(())
        }
        Command::Token { keys, subject, role, lifetime_s } => {
            let role = role.into();
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

/// Makes it when it is not there: for what fills a database.
async fn open_to_fill(settings: &Settings) -> Result<Store, CliError> {
    Store::connect_to_fill(settings).await.map_err(|error| unopened(settings, error))
}

/// For what would use or change what is in it.
async fn open_existing(settings: &Settings) -> Result<Store, CliError> {
    Store::connect_existing(settings).await.map_err(|error| unopened(settings, error))
}

fn unopened(settings: &Settings, error: StoreError) -> CliError {
    match error {
        StoreError::Absent(_) => CliError::Store(error),
        error => CliError::Open(settings.place(), error),
    }
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
    let metrics = metrics_exporter_prometheus::PrometheusBuilder::new();
    let metrics = metrics.set_buckets(&origin::upkeep::BOUNDS_S)?.install_recorder()?;
    let keys = Arc::new(keys::load(&arguments.keys)?);
    let edge_secrets = [&arguments.edge_secret, &arguments.edge_secret_before];
    let edge_secrets = edge_secrets.into_iter().flatten().map(|secret| EdgeSecret::new(secret));
    let edge_secrets = edge_secrets.collect::<Result<Vec<_>, _>>()?;
    let store = Store::connect(&arguments.store).await.map_err(|error| unopened(&arguments.store, error))?;
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.map_err(|error| CliError::Listen(arguments.listen, error))?;
    let address = listener.local_addr().map_err(CliError::Serve)?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let edges = Arc::new(Edges::new(Arc::clone(&keys), &arguments.edge_url).map_err(CliError::Client)?);
    if arguments.edge_url.is_empty() {
        for (role, lacks) in [
            (Role::Jobs, "purges are delivered to no edge"),
            (Role::Admin, "no receipt says how far a purge has come"),
            (Role::Client, "no edge fetches documents ahead of viewers"),
        ] {
            if arguments.role.contains(&role) {
                tracing::warn!("no --edge-url: {lacks}");
            }
        }
    }
    let mut jobs = tokio::task::JoinSet::new();
    jobs.spawn(origin::upkeep::run(metrics.clone(), stop.subscribe()));
    if arguments.role.contains(&Role::Jobs) {
        let dispatcher = Dispatcher::new(store.clone(), Arc::clone(&keys), arguments.edge_url.clone());
        jobs.spawn(dispatcher.map_err(CliError::Client)?.run(stopped.clone()));
        jobs.spawn(origin::sweep::run(store.clone(), arguments.retention, stopped.clone()));
        jobs.spawn(origin::schedule::run(store.clone(), stopped.clone()));
        jobs.spawn(origin::similar::run(store.clone(), stopped));
    }
    if edge_secrets.is_empty() {
        for (role, lacks) in [
            (Role::Auth, "log-ins are not throttled by address"),
            (Role::Client, "whoever reaches this service is believed what is said of viewers"),
        ] {
            if arguments.role.contains(&role) {
                tracing::warn!("no --edge-secret: {lacks}");
            }
        }
    }
    let hasher = Hasher::new(Cost::RFC_9106, usize::from(arguments.hashes))?;
    let auth = Arc::new(Auth { unproven: arguments.unproven_viewers, ..Auth::new(hasher, edge_secrets) });
    let gates = Arc::new(Gates::new(&arguments.limit));
    let rendered = match arguments.rendered_mib {
        0 => None,
        mib => Some(Arc::new(Rendered::new(mib.saturating_mul(1024 * 1024), arguments.redis_url.as_deref()).await?)),
    };
    // Where documents are rendered it is known which are in use.
    let warms = arguments.warm > 0 && rendered.is_some() && arguments.role.contains(&Role::Client);
    let in_use = (warms && !arguments.edge_url.is_empty()).then(Arc::<InUse>::default);
    if let Some(in_use) = &in_use {
        let (count_max, in_use) = (usize::from(arguments.warm), Arc::clone(in_use));
        let warmer = Warmer::new(store.clone(), Arc::clone(&keys), in_use, &arguments.edge_url, count_max);
        jobs.spawn(warmer.map_err(CliError::Client)?.run(stop.subscribe()));
    }
    let app = App { store: store.clone(), keys, edges, metrics, auth, gates, rendered, in_use };
    tracing::info!("origin listening on http://{address}");
    let served = serve_until_stopped(listener, router(app, &arguments.role), arguments.drain_ms).await;
    let _ = stop.send(true);
    // What a job has not committed by then never was; the next start does it.
    let _ = tokio::time::timeout(JOBS_STOP_TIMEOUT, jobs.join_all()).await;
    store.close().await;
    served.map_err(CliError::Serve)
}

/// Serves until it is told to stop and requests under way are answered. A client that never sends its request to the end, or
/// reads its answer, must not keep the process.
async fn serve_until_stopped(listener: TcpListener, router: Router, drain_ms: u64) -> std::io::Result<()> {
    let told = Arc::new(Notify::new());
    let tells = Arc::clone(&told);
    let signal = async move {
        stop_signal().await;
        tells.notify_one();
    };
    let overdue = async {
        told.notified().await;
        tokio::time::sleep(Duration::from_millis(drain_ms)).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(signal).into_future() => served,
        () = overdue => {
            tracing::warn!(drain_ms, "clients that have not sent their request, or read their answer, to the end are left");
            Ok(())
        }
    }
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

async fn back_up(settings: &Settings, to: &Path) -> Result<(), CliError> {
    let store = open_existing(settings).await?;
    let snapshot = store.snapshot().await.map_err(CliError::Store)?;
    let as_of = snapshot.as_of.clone();
    let rows = snapshot.back_up_to(to).await.map_err(|error| CliError::Backup(to.into(), error))?;
    store.close().await;
    println!("{rows} rows at {as_of}");
    Ok(())
}

async fn restore(settings: &Settings, from: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::Backup(from.into(), error);
    let file = std::fs::File::open(from).map_err(|error| failed(error.into()))?;
    let store = open_to_fill(settings).await?;
    let (rows, as_of) = store.restore(std::io::BufReader::new(file)).await.map_err(failed)?;
    store.analyze().await.map_err(CliError::Store)?;
    store.close().await;
    println!("{rows} rows restored; the purge log goes on as {as_of}");
    Ok(())
}

async fn export_catalogue(settings: &Settings) -> Result<(), CliError> {
    let store = open_existing(settings).await?;
    let mut snapshot = store.snapshot().await.map_err(CliError::Store)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    export::catalogue(&mut snapshot, &mut out).await?;
    drop(snapshot);
    store.close().await;
    Ok(())
}

async fn generate_catalogue(settings: &Settings, amounts: &generate::Amounts) -> Result<(), CliError> {
    let store = open_to_fill(settings).await?;
    let bar = ProgressBar::new(1);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {elapsed}") {
        bar.set_style(style);
    }
    let reports = generate::run(&store, amounts, |what, done, of| {
        bar.set_length(of);
        bar.set_message(what);
        bar.set_position(done);
    });
    let reports = reports.await?;
    bar.finish_and_clear();
    store.close().await;
    let created: usize = reports.iter().map(|report| report.created).sum();
    let rails: usize = reports.iter().map(|report| report.rails_written).sum();
    println!("{created} titles created, {rails} rails written; {} viewers are there", amounts.users);
    Ok(())
}

async fn import_file(arguments: Import) -> Result<(), CliError> {
    if arguments.format != Some(Format::Mongoexport) {
        let given = [("--mapping", arguments.mapping.is_some()), ("--collection", arguments.collection.is_some())];
        if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(CliError::NotOfFormat(option));
        }
    }
    let batch = match arguments.format {
        Some(Format::Mongoexport) => {
            let read = |path: &PathBuf| {
                std::fs::read_to_string(path).map_err(|error| import::ImportError::Read(path.clone(), error))
            };
            let mapping = match &arguments.mapping {
                None => Mapping::default(),
                Some(path) => Mapping::read(&read(path)?)
                    .map_err(|error| import::ImportError::Format(path.clone(), "mapping", error))?,
            };
            let text = read(&arguments.file)?;
            import::read_collection(&arguments.file, &text, arguments.collection.as_deref(), &mapping)?
        }
        format => import::read(&arguments.file, format)?,
    };
    let store = open_to_fill(&arguments.store).await?;
    let bar = ProgressBar::new(u64::try_from(batch.titles.len()).unwrap_or(0));
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} titles, {elapsed}") {
        bar.set_style(style);
    }
    let present = if arguments.only_new { Present::Kept } else { Present::Replaced };
    let report =
        import::write_over(&store, batch, present, |done| bar.set_position(u64::try_from(done).unwrap_or(0))).await?;
    bar.finish_and_clear();
    store.close().await;
    match arguments.report {
        ReportForm::Text => print!("{report}"),
        ReportForm::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    if report.is_failure() { Err(CliError::NothingTaken(arguments.file)) } else { Ok(()) }
}
