//! A PostgreSQL server that is reset to its seed, with the commands of `docs/incremental.md`.

use super::fixture::Directory;
use super::program::{Finished, finish};
use super::services::repository;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

/// A server as Debian packages it, run by Debian's user `postgres`. It is stopped when it is dropped.
struct Server {
    place: Directory,
}

impl Server {
    /// Creates a database cluster with checksums, and starts it. It listens on a socket in its own directory only.
    fn start() -> Self {
        let server = Self { place: Directory::empty() };
        let place = server.place.path();
        fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::create_dir(place.join("bin")).expect("mkdir");
        fs::copy(env!("CARGO_BIN_EXE_volio"), place.join("bin/volio")).expect("cp");
        symlink(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"), place.join("examples")).expect("symlink");
        finish(Command::new("install").args(["-d", "-o", "postgres", &server.place.join("server")]))
            .succeeded();
        server.shell("initdb --data-checksums --no-sync").succeeded();
        server.shell("echo \"listen_addresses = ''\nunix_socket_directories = '$PGDATA'\" >>\"$PGDATA/postgresql.conf\"").succeeded();
        server.shell("pg_ctl start --wait --log \"$PGDATA.log\"").succeeded();
        server
    }

    /// Runs a shell command as the server's user.
    fn shell(&self, command: &str) -> Finished {
        let data = self.place.join("server/data");
        let path = format!(
            "{}:{}:{}",
            self.place.join("bin"),
            programs().display(),
            std::env::var("PATH").expect("PATH")
        );
        let mut shell = Command::new("runuser");
        shell.args(["-u", "postgres", "--", "env"]);
        shell.args([
            format!("PATH={path}"),
            format!("PGDATA={data}"),
            format!("PGHOST={data}"),
            "HOME=/".to_owned(),
        ]);
        finish(shell.args(["sh", "-ec", command]).current_dir(self.place.path()))
    }

    fn sql(&self, statements: &str) -> String {
        let statements = statements.replace('\'', "'\\''");
        self.shell(&format!("psql --no-psqlrc --tuples-only --no-align --quiet --set ON_ERROR_STOP=1 --command '{statements}' postgres")).succeeded()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shell("pg_ctl stop --mode immediate || true");
    }
}

/// The directory of the newest PostgreSQL's programs, which Debian does not have in the PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed: run tests/run");
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    versions.map(|entry| entry.expect("an entry").path()).max_by_key(version).expect("a version").join("bin")
}

/// Returns the commands of the page that have to do with PostgreSQL.
fn commands() -> Vec<String> {
    let page = fs::read_to_string("docs/incremental.md").expect("the page");
    let block = page.split("```sh\n").find(|block| block.starts_with("pg_ctl ")).expect("a block of pg_ctl");
    block.split("```").next().unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs docker-registry, PostgreSQL and root: run tests/run"]
fn postgresql_is_reset_to_its_seed_by_the_commands_of_the_page() {
    let server = Server::start();
    let host = repository("");
    let commands = commands();
    let [stop, pack, first, again] = &commands[..] else { panic!("{commands:#?}") };
    let run = |command: &str| server.shell(&command.replace("registry.example/", &host)).succeeded();
    server.sql("CREATE TABLE numbers AS SELECT n, md5(n::text) AS text FROM generate_series(1, 100000) n");
    server.sql("CREATE TABLE small AS SELECT 'seed' AS text");
    let rows = "SELECT count(*), sum(n), min(text), max(text) FROM numbers";
    let seed = server.sql(rows);
    run(stop);
    run(pack);
    run(first);
    assert_eq!(server.sql(rows), seed);

    for change in [
        "UPDATE small SET text = 'changed'",
        "DELETE FROM numbers WHERE n < 100",
        "CREATE DATABASE another",
        "DROP TABLE small",
        "CREATE TABLE new AS SELECT * FROM numbers",
    ] {
        server.sql(change);
        server.sql("CHECKPOINT");
        assert!(again.contains(" registry"), "{again}");
        let output = run(&again.replace(" registry", " --format json registry"));
        let document = output.find('{').zip(output.rfind('}')).map(|(start, end)| &output[start..=end]);
        let document: Value = serde_json::from_str(document.expect("a document")).expect("JSON");
        // A thousand files, of which few were changed.
        let (unchanged, written) = (&document["sync"]["unchanged"], &document["sync"]["written"]);
        let few = unchanged.as_u64() > Some(900) && (1..60).contains(&written.as_u64().unwrap_or_default());
        assert!(few, "{change}: {document:#}");
        assert_eq!(
            (server.sql(rows), server.sql("SELECT text FROM small")),
            (seed.clone(), "seed".to_owned()),
            "{change}"
        );
        assert_eq!(server.sql("SELECT count(*) FROM pg_database"), "3");
        assert_eq!(server.sql("SELECT to_regclass('new')"), "");
    }
    // Each page has a checksum.
    server.shell("pg_ctl stop && pg_checksums --check").succeeded();
}

/// Returns the command of the Kubernetes example's container, with another image and with directories of the server.
fn pack_of_the_example(image: &str) -> String {
    let manifest = fs::read_to_string("examples/kubernetes/postgresql-export.yaml").expect("the example");
    let objects = crate::kubernetes::read(&manifest).expect("a manifest");
    let container = &objects[0].pod().expect("a pod").containers[0];
    let arguments = container.args.iter().flatten().map(|argument| {
        if argument.starts_with("registry.example/") {
            image.to_owned()
        } else {
            argument.replace("/dump", "server/dump").replace("/state", "server/state")
        }
    });
    let quoted: Vec<String> = arguments.map(|argument| format!("'{argument}'")).collect();
    // The example's database and user are those of the secret.
    format!("PGDATABASE=postgres volio {}", quoted.join(" "))
}

#[test]
#[ignore = "needs docker-registry, PostgreSQL and root: run tests/run"]
fn postgresql_is_dumped_before_each_pack_and_a_dump_that_fails_keeps_the_last_good_one() {
    let server = Server::start();
    let image = repository("dumped:latest");
    server.shell("mkdir -p server/dump server/state").succeeded();
    server.sql("CREATE TABLE facts AS SELECT n FROM generate_series(1, 1000) n");
    let pack = pack_of_the_example(&image);
    server.shell(&pack).succeeded();
    server.sql("INSERT INTO facts SELECT n FROM generate_series(1001, 2000) n");
    server.shell(&pack).succeeded();
    // The database is down: there is no new image.
    server.shell("pg_ctl stop --mode fast").succeeded();
    let told = server.shell(&pack).failed_with(1);
    assert!(
        told.contains("before: pg_dump: error") && told.contains("--before failed: exit status"),
        "{told}"
    );
    server.shell("pg_ctl start --wait --log \"$PGDATA.log\"").succeeded();
    server.sql("DROP TABLE facts");
    server.shell(&format!("volio unpack {image} server/restored")).succeeded();
    server.shell("pg_restore --exit-on-error --dbname postgres server/restored/shop.dump").succeeded();
    assert_eq!(server.sql("SELECT count(*) FROM facts"), "2000");
}
