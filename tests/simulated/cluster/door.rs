//! Nodes asked over HTTP, one request a connection.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::HTTP;

/// The token of an administrator.
pub const TOKEN: &str = "sesame";
/// How long a caller waits for an answer.
const WITHIN: Duration = Duration::from_millis(1_500);
/// How long an operator does: an order goes to the leader, and a new node is looked for.
const ORDER_WITHIN: Duration = Duration::from_secs(5);

/// Status and body of an answer, if there was one.
pub type Answer = io::Result<(u16, Value)>;

pub async fn request(node: usize, method: &str, path: &str, body: &str) -> Answer {
    within(WITHIN, node, method, path, body).await
}

pub async fn order(node: usize, method: &str, path: &str, body: &str) -> Answer {
    within(ORDER_WITHIN, node, method, path, body).await
}

async fn within(most: Duration, node: usize, method: &str, path: &str, body: &str) -> Answer {
    let host = format!("n{}", node + 1);
    let asking = async {
        let mut stream = turmoil::net::TcpStream::connect((host.as_str(), HTTP)).await?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nx-tidegate-token: {TOKEN}\r\ncontent-length: \
             {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let unread = || io::Error::new(io::ErrorKind::InvalidData, "no answer");
        Ok((status.ok_or_else(unread)?, serde_json::from_str(body).unwrap_or(Value::Null)))
    };
    tokio::time::timeout(most, asking).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}
