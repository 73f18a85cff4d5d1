"""From recorded metrics to tables and figures. Nothing in here trains, predicts or reads weights."""
