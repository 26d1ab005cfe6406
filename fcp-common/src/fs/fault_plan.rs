//! The plan behind `fault::check` in test binaries.

use std::cell::RefCell;
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use super::Op;

/// Asks the plan whether the operation that is about to happen may.
///
/// # Errors
/// The errno that the plan names for this operation.
pub fn check(op: Op) -> rustix::io::Result<()> {
    let armed = ARMED.with_borrow_mut(|plan| plan.as_mut().map(|plan| plan.step(op)));
    let verdict = armed.unwrap_or_else(|| match PROCESS.as_ref() {
        Some(plan) => plan.lock().unwrap_or_else(PoisonError::into_inner).step(op),
        None => Verdict::Go,
    });
    match verdict {
        Verdict::Go => Ok(()),
        Verdict::Fail(errno) => Err(errno),
        Verdict::Kill => die(),
    }
}

/// Appends what the process-wide plan counted to the file it names with `count=`.
pub fn report() {
    let Some(plan) = PROCESS.as_ref() else { return };
    let plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(path) = &plan.count_to else { return };
    let text: String = Op::ALL
        .iter()
        .map(|op| (op, plan.seen.iter().filter(|seen| *seen == op).count()))
        .filter(|(_, n)| *n > 0)
        .map(|(op, n)| format!("{} {n}\n", op.name()))
        .collect();
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    if let Err(error) = file.and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes())) {
        tracing::warn!("cannot write the operation counts to {path}: {error}");
    }
}

/// Puts a plan into force for this thread until the guard is dropped.
///
/// # Errors
/// What is wrong with `plan`.
pub fn arm(plan: &str) -> Result<Armed, String> {
    let plan = Plan::parse(plan)?;
    ARMED.with_borrow_mut(|armed| *armed = Some(plan));
    Ok(Armed { _not_send: std::marker::PhantomData })
}

/// A plan in force for the thread that armed it.
#[must_use]
pub struct Armed {
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Armed {
    /// Every operation of this thread since the plan was armed.
    pub fn seen(&self) -> Vec<Op> {
        ARMED.with_borrow(|plan| plan.as_ref().map(|p| p.seen.clone()).unwrap_or_default())
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.with_borrow_mut(|armed| *armed = None);
    }
}

thread_local! {
    static ARMED: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// A plan that cannot be read stops the process: a test that runs without its fault proves nothing.
static PROCESS: LazyLock<Option<Mutex<Plan>>> = LazyLock::new(|| {
    let text = std::env::var("FCP_FAULT").ok()?;
    match Plan::parse(&text) {
        Ok(plan) => Some(Mutex::new(plan)),
        Err(why) => {
            eprintln!("FCP_FAULT: {why}");
            std::process::exit(2)
        }
    }
});

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Go,
    Fail(Errno),
    Kill,
}

#[derive(Debug)]
struct Rule {
    only: Option<Op>,
    at: u64,
    onwards: bool,
    then: Verdict,
    seen: u64,
}

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Rule>,
    count_to: Option<String>,
    seen: Vec<Op>,
}

impl Plan {
    fn parse(text: &str) -> Result<Plan, String> {
        let mut plan = Plan::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            match item.strip_prefix("count=") {
                Some(path) => plan.count_to = Some(path.to_owned()),
                None => plan.rules.push(Rule::parse(item).ok_or(format!("bad item '{item}'"))?),
            }
        }
        Ok(plan)
    }

    fn step(&mut self, op: Op) -> Verdict {
        self.seen.push(op);
        // Every rule counts, even when another has already decided.
        let verdicts: Vec<Verdict> = self.rules.iter_mut().map(|rule| rule.step(op)).collect();
        verdicts.into_iter().find(|v| *v != Verdict::Go).unwrap_or(Verdict::Go)
    }
}

impl Rule {
    fn parse(item: &str) -> Option<Rule> {
        let (only, rest) = match item.split_once(':') {
            Some((name, rest)) => (Some(*Op::ALL.iter().find(|op| op.name() == name)?), rest),
            None => (None, item),
        };
        let (verb, rest) = rest.split_once('@')?;
        let (at, then) = match verb {
            "kill" => (rest, Verdict::Kill),
            "fail" => {
                rest.split_once('=').and_then(|(at, e)| Some((at, Verdict::Fail(errno(e)?))))?
            }
            _ => return None,
        };
        let at_number = at.strip_suffix('+').unwrap_or(at);
        let onwards = at.ends_with('+');
        Some(Rule { only, at: at_number.parse().ok()?, onwards, then, seen: 0 })
    }

    fn step(&mut self, op: Op) -> Verdict {
        if self.only.is_some_and(|only| only != op) {
            return Verdict::Go;
        }
        self.seen += 1;
        let hit = self.seen == self.at || (self.onwards && self.seen > self.at);
        if hit { self.then } else { Verdict::Go }
    }
}

fn errno(name: &str) -> Option<Errno> {
    Some(match name {
        "EACCES" => Errno::ACCESS,
        "EDQUOT" => Errno::DQUOT,
        "EEXIST" => Errno::EXIST,
        "EFBIG" => Errno::FBIG,
        "EINTR" => Errno::INTR,
        "EINVAL" => Errno::INVAL,
        "EIO" => Errno::IO,
        "ELOOP" => Errno::LOOP,
        "EMFILE" => Errno::MFILE,
        "ENFILE" => Errno::NFILE,
        "ENOENT" => Errno::NOENT,
        "ENOSPC" => Errno::NOSPC,
        "ENOSYS" => Errno::NOSYS,
        "ENOTEMPTY" => Errno::NOTEMPTY,
        "EOPNOTSUPP" => Errno::OPNOTSUPP,
        "EPERM" => Errno::PERM,
        "EROFS" => Errno::ROFS,
        "ESTALE" => Errno::STALE,
        "EXDEV" => Errno::XDEV,
        _ => return None,
    })
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // SIGKILL cannot be survived; this line is for the type only.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_fails_where_it_says() {
        let armed = arm("fail@2=ENOSPC,rename:fail@1+=EIO").unwrap();
        assert_eq!(check(Op::Write), Ok(()));
        assert_eq!(check(Op::Write), Err(Errno::NOSPC));
        assert_eq!(check(Op::Write), Ok(()));
        assert_eq!(check(Op::Rename), Err(Errno::IO));
        assert_eq!(check(Op::Rename), Err(Errno::IO));
        assert_eq!(armed.seen().len(), 5);
        drop(armed);
        assert_eq!(check(Op::Rename), Ok(()));
    }

    #[test]
    fn a_plan_that_cannot_be_read_is_refused() {
        for bad in ["boom@1", "fail@x=EIO", "fail@1=EWHAT", "fail@1", "nosuch:kill@1", "kill"] {
            assert!(Plan::parse(bad).is_err(), "{bad}");
        }
        assert!(Plan::parse("kill@17,count=/tmp/x,write:fail@3=EIO").is_ok());
    }
}
