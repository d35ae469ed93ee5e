//! Prints the directory of the Kafka jars, and fetches them if they are not there. This is for uses of Kafka without a
//! broker, such as building an image.

use std::io::Write;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = saga_servers::kafka_jars().await?;
    writeln!(std::io::stdout(), "{}", directory.display())?;
    Ok(())
}
