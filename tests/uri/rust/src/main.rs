//! Reads a JSON string from each line, prints scheme, host and port as the crate `url` sees them, or null.

fn main() {
    for line in std::io::stdin().lines() {
        let text: String = serde_json::from_str(&line.unwrap()).unwrap();
        let found = url::Url::parse(&text).ok().map(|url| {
            let port = url.port().map(|port| port.to_string()).unwrap_or_default();
            [url.scheme().to_owned(), url.host_str().unwrap_or_default().to_owned(), port]
        });
        println!("{}", serde_json::to_string(&found).unwrap());
    }
}
