//! The texts that the program prints on the terminal, besides the log.

use crate::{
    options::{Name, Options},
    provision::{DATABASES, Product, SHELF, SOLD_OUT},
};
use std::{
    fmt::{self, Write as _},
    io::Write as _,
    time::Duration,
};

/// Prints one line of progress.
pub fn say(text: &str) {
    print(&format!("saga: {text}\n"));
}

/// Prints the addresses of everything that runs, and commands to try.
pub fn ready(options: &Options, took: Duration) {
    print(&text(options, took).unwrap_or_default());
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed standard output is no reason to stop.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn text(options: &Options, took: Duration) -> Result<String, fmt::Error> {
    let mut out = String::new();
    writeln!(out, "saga: ready in {:.1} s\n", took.as_secs_f64())?;
    places(&mut out, options)?;
    if options.runs(Name::OrderSvc) {
        examples(&mut out, options)?;
    }
    writeln!(
        out,
        "\nCtrl-C stops everything. The next start continues with the same data. --help shows more.\n"
    )?;
    Ok(out)
}

fn places(out: &mut String, options: &Options) -> fmt::Result {
    if options.runs(Name::Orchestrator) {
        writeln!(out, "  Page           {}", options.url(Name::Orchestrator))?;
    }
    for name in Name::ALL {
        let (service, url) = (name.service(), options.url(name));
        if options.runs(name) {
            writeln!(out, "  {service:<13}  {url}   API: {url}/api/docs")?;
        } else {
            let directory = options.data_dir.display();
            writeln!(
                out,
                "  {service:<13}  left out; to join: cargo run -p {service} -- --data-dir {directory}"
            )?;
        }
    }
    let brokers = options.brokers();
    writeln!(out, "  Kafka          {brokers}")?;
    if options.postgres_url.is_none() {
        writeln!(out, "  Postgres       127.0.0.1:{}", options.postgres_port)?;
        let directory = options.data_dir.join("postgres");
        for database in &DATABASES {
            let name = database.name;
            writeln!(
                out,
                "                 PGPASSWORD=$(cat {}/{name}.password) psql -h 127.0.0.1 -p {} -U {name} {name}",
                directory.display(),
                options.postgres_port
            )?;
        }
    }
    writeln!(
        out,
        "\nThe story of every saga:\n\n  kcat -b {brokers} -t saga.events -C -q"
    )
}

fn examples(out: &mut String, options: &Options) -> fmt::Result {
    writeln!(
        out,
        "\nOrders to try: one that is confirmed, one that is declined (above 1000.00), one out of stock:\n"
    )?;
    let cases: [(&Product, &str); 3] = [(&SHELF, "21.50"), (&SHELF, "1500"), (&SOLD_OUT, "10")];
    for (product, amount) in cases {
        writeln!(
            out,
            "  curl -s {}/orders -H 'content-type: application/json' -H 'prefer: wait=10' -d \
             '{{\"customerId\":\"c0000000-0000-4000-8000-000000000001\",\"productId\":\"{}\",\"quantity\":1,\"amount\":{amount}}}'",
            options.url(Name::OrderSvc),
            product.id
        )?;
    }
    Ok(())
}
