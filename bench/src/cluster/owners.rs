//! Whose the tenants are: found by asking one node what each would be answered, and reading who
//! says so.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::answer;
use crate::interrupt;
use crate::response::ResponseReader;
use crate::scenario::{Call, Request};
use crate::server::{Server, node_name};

/// Callers that ask side by side: enough to keep a node busy.
const CALLERS: u32 = 8;
/// How long one answer may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Whose tenants are which.
#[derive(Debug, Default)]
pub struct Owners {
    /// The tenants of each node, the first one's first; none of them has none.
    pub of: Vec<Arc<[u32]>>,
}

/// A tenant, and which node would decide it.
type Owned = (u32, usize);

impl Owners {
    /// Asks the first node of `cluster` for the first `tenants`. An error where some node would
    /// decide none of them.
    pub fn ask(cluster: &Server, tenants: u32) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let node = *cluster.addresses().first().ok_or("a cluster without nodes")?;
        let nodes = cluster.addresses().len();
        let asked: Vec<Result<Vec<Owned>, Box<dyn Error + Send + Sync>>> =
            std::thread::scope(|scope| {
                let callers: Vec<_> = (0..CALLERS)
                    .map(|first| {
                        scope.spawn(move || {
                            peek(node, nodes, (first..tenants).step_by(CALLERS as usize))
                        })
                    })
                    .collect();
                callers
                    .into_iter()
                    .map(|caller| {
                        caller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    })
                    .collect()
            });
        let mut all = Vec::with_capacity(tenants as usize);
        for owned in asked {
            all.extend(owned?);
        }
        all.sort_unstable();
        Self::of(&all, nodes)
    }

    fn of(all: &[Owned], nodes: usize) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let part = |node| all.iter().filter(|owned| owned.1 == node).map(|owned| owned.0).collect();
        let of: Vec<Arc<[u32]>> = (0..nodes).map(part).collect();
        match of.iter().position(|part| part.is_empty()) {
            Some(node) => {
                Err(format!("{} decides none of {} tenants", node_name(node), all.len()).into())
            }
            None => Ok(Self { of }),
        }
    }

    /// As many tenants of the first node as of all others together, and those.
    pub fn own_and_others(&self) -> (Vec<u32>, Vec<u32>) {
        let mut own = self.of[0].to_vec();
        // In turns, so that no node has more of them than another.
        let longest = self.of.iter().map(|part| part.len()).max().unwrap_or(0);
        let others =
            (0..longest).flat_map(|i| self.of[1..].iter().filter_map(move |part| part.get(i)));
        let mut others: Vec<_> = others.copied().collect();
        let count = own.len().min(others.len());
        own.truncate(count);
        others.truncate(count);
        (own, others)
    }
}

fn peek(
    node: SocketAddr,
    nodes: usize,
    tenants: impl Iterator<Item = u32>,
) -> Result<Vec<Owned>, Box<dyn Error + Send + Sync>> {
    let mut stream = TcpStream::connect_timeout(&node, ANSWER_WAIT_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
    let (mut request, mut reader) = (Request::new(Call::Peek), ResponseReader::default());
    let names: Vec<_> = (0..nodes).map(node_name).collect();
    let mut owned = Vec::new();
    for tenant in tenants {
        interrupt::check()?;
        request.aim(|| tenant);
        stream.write_all(request.bytes())?;
        let head = loop {
            match stream.read(reader.spare())? {
                0 => return Err("the server closed a connection".into()),
                bytes => reader.advance(bytes),
            }
            if let Some(head) = reader.next()? {
                break head;
            }
        };
        if head.status != 200 {
            return Err(format!("a peek was answered {}", head.status).into());
        }
        let decider = answer::decider(reader.body())?;
        let at = names.iter().position(|name| *name == decider);
        owned.push((
            tenant,
            at.ok_or_else(|| format!("{decider} decides, which isn't one of {names:?}"))?,
        ));
    }
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_parted_by_who_would_decide_and_no_node_may_have_none() {
        let all = [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 1), (6, 0)];
        let owners = Owners::of(&all, 3).unwrap();
        assert_eq!(owners.of, [[0, 3, 6].into(), [1, 4, 5].into(), Arc::from([2])]);
        assert_eq!(owners.own_and_others(), (vec![0, 3, 6], vec![1, 2, 4]));
        let said = Owners::of(&all, 4).unwrap_err().to_string();
        assert_eq!(said, "n4 decides none of 7 tenants");
    }
}
