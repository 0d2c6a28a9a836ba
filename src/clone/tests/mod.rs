mod machine;
mod records;
