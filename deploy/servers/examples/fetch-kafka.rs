//! Prints the directory of the Kafka jars, fetched if they are not there: for what needs Kafka without a broker, such as
//! building an image of it.

use std::io::Write;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = saga_servers::kafka_jars().await?;
    writeln!(std::io::stdout(), "{}", directory.display())?;
    Ok(())
}
