//! Servers of other projects, as processes of a test.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::PATIENCE;

/// A running server. Its drop kills it, and prints its output if the test fails.
pub struct Daemon {
    process: Child,
    /// Contains its configuration and logs.
    pub directory: TempDir,
    pub port: Port,
}

impl Daemon {
    /// Starts the process that `configure` returns for a directory and a port. It has to stay in the foreground. Blocks until it
    /// accepts connections.
    pub fn start(package: &str, directory: TempDir, configure: impl FnOnce(&Path, u16) -> Command) -> Self {
        let port = Port::reserve();
        let output = File::create(directory.path().join("output.log")).unwrap();
        let mut command = configure(directory.path(), port.number);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let process = run(command, package, Command::spawn);
        let mut daemon = Self { process, directory, port };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, daemon.port.number));
        // Servers have no common way to report that they are ready.
        daemon.wait_until("takes connections", || TcpStream::connect(address).is_ok());
        daemon
    }

    /// Polls `is_so` while the server runs. An external process offers nothing to wait on.
    pub fn wait_until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the server has ended: {ended:?}");
            assert!(Instant::now() < deadline, "not in time: the server {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if the server has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
        if thread::panicking() {
            for log in ["output.log", "error.log", "access.log"] {
                let text = fs::read(self.directory.path().join(log)).unwrap_or_default();
                eprintln!("-- {log}\n{}", String::from_utf8_lossy(&text));
            }
        }
    }
}

/// A port of the loopback interface that no other process gets.
pub struct Port {
    pub number: u16,
    /// Bound, but never listening. Servers that set SO_REUSEADDR can bind the same port. The system does not choose it when another
    /// process asks for a free port.
    _reservation: Socket,
}

impl Port {
    pub fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let number = socket.local_addr().unwrap().as_socket_ipv4().unwrap().port();
        Self { number, _reservation: socket }
    }
}

/// Path of a program, also in the directories that only root has in its PATH.
pub fn program(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// Runs a program. Panics with the name of its Debian `package` if it is not installed.
pub fn run<T>(mut command: Command, package: &str, how: impl FnOnce(&mut Command) -> io::Result<T>) -> T {
    how(&mut command).unwrap_or_else(|error| {
        panic!("can't run {:?} (apt-get install {package}): {error}", command.get_program())
    })
}
