//! A server that takes e-mail: as much of SMTP as a client needs to hand over a message.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A message as it was handed over.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// What the client said to log in, after `AUTH`.
    pub login: String,
    pub from: String,
    pub to: Vec<String>,
    /// Head and body, with folded lines of the head joined.
    pub text: String,
}

pub struct MailServer {
    pub address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    task: tokio::task::JoinHandle<()>,
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::<Mutex<Vec<Mail>>>::default();
        let shared = mails.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, mails, task }
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, mails: Arc<Mutex<Vec<Mail>>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut mail = Mail::default();
    write.write_all(b"220 mail.example.com\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split_once([' ', ':']).map_or(line.as_str(), |(word, _)| word) {
            "EHLO" => "250-mail.example.com\r\n250 AUTH PLAIN\r\n",
            "AUTH" => {
                mail.login = line["AUTH ".len()..].to_owned();
                "235 welcome\r\n"
            }
            "MAIL" => {
                mail.from = line;
                "250 fine\r\n"
            }
            "RCPT" => {
                mail.to.push(line);
                "250 fine\r\n"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut text = Vec::new();
                while let Some(line) = lines.next_line().await?.filter(|l| l != ".") {
                    text.push(line);
                }
                mail.text = text.join("\n").replace("\n ", " ");
                mails.lock().unwrap().push(std::mem::take(&mut mail));
                "250 taken\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "500 what?\r\n",
        };
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
