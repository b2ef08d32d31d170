"""The console: pages for the people who bill, over the same database and code as the verbs and the API.

Pages are made on the server and work without JavaScript. Nobody sees one without a session (but the login and
the set-up), and each names the roles it is for. Source: specs/console.md. Needs the `service` extra.
"""
