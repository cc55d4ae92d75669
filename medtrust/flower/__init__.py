"""Federated evaluation over Flower: one open port at the coordinator, outgoing connections alone at the sites.

`site` and `exchange` know the words that the two sides say and nothing of Flower, `courier` carries them over a Flower
Grid, `apps` is the Flower App (ServerApp and ClientApp), `joining` and `serving` start the processes.
"""
