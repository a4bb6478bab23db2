//! A door between the service and a server: what stands behind it can change, and it can close in the middle of something.
#![allow(dead_code)]
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Door {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Where it leads.
    to: u16,
    /// Once a client has said this, and the server has answered, nobody hears it.
    unheard: Option<&'static str>,
}

impl State {
    fn loses(&mut self, asked: &[u8]) -> bool {
        let is_it = self.unheard.is_some_and(|said| asked.windows(said.len()).any(|part| part == said.as_bytes()));
        if is_it {
            self.unheard = None;
        }
        is_it
    }
}

impl Door {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(Mutex::new(State { to: port, unheard: None })),
        };
        let state = Arc::clone(&door.state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&state)));
            }
        });
        door
    }

    /// Where those come out who come from now on.
    pub fn lead_to(&self, port: u16) {
        self.state.lock().unwrap().to = port;
    }

    /// The next answer to this, which is sent in one piece, is lost with its connection.
    pub fn lose_answer_to(&self, said: &'static str) {
        self.state.lock().unwrap().unheard = Some(said);
    }
}

/// Until either end hangs up.
async fn pass(mut client: TcpStream, state: Arc<Mutex<State>>) {
    let to = state.lock().unwrap().to;
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (mut asked, mut answered) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut is_lost = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                is_lost = is_lost || state.lock().unwrap().loses(&asked[..count]);
                if server.write_all(&asked[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if is_lost || client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
