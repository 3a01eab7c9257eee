"""RabbitMQ: connecting, declaring, consuming, publishing, retry queues and dead letters.

Where is what: a :class:`~feedmill.broker.session.Session` is one generation of connections with one consumer;
:class:`~feedmill.broker.supervisor.Supervisor` opens a new one whenever it is lost;
:class:`~feedmill.broker.settle.Settler` is where a message is answered, retried, buried, acked or handed back.
"""
