//! Child processes that never outlive the test process.
//!
//! Statics are not dropped and a killed test runner cleans up nothing, so each child asks the kernel
//! to be killed when its parent ends (`setpriv --pdeathsig`). The kernel means the parent *thread*:
//! all children are therefore started by one thread that lives as long as the process.

use std::process::{Child, Command, ExitStatus};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

static SPAWNER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    std::thread::spawn(move || {
        for (mut command, reply) in inbox {
            reply
                .send(command.spawn())
                .expect("the caller waits for its child");
        }
    });
    Mutex::new(orders)
});

/// Starts `command` so that it is killed when this process ends.
pub(crate) fn spawn(command: Command) -> Child {
    let (reply, child) = mpsc::channel();
    SPAWNER.lock().unwrap().send((command, reply)).unwrap();
    child.recv().unwrap().unwrap()
}

/// A command for [`spawn`] that runs `program`.
pub(crate) fn bound(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Sends SIGTERM to the child.
pub(crate) fn terminate(child: &Child) {
    signal(child, "TERM");
}

/// Sends a signal, by its name, to the child.
pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

/// Waits for the child to end; `None` if it did not in time.
pub(crate) fn wait_for(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if started.elapsed() > timeout {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills the child and reaps it.
pub(crate) fn end(child: &mut Child) {
    // Killing fails only when the child has ended already.
    let _already_ended = child.kill();
    let _reaped = child.wait();
}
