"""Wrong answers to assignment 4: bounds that are none, steps that are off, trainings that saw too much."""

from __future__ import annotations

from tests.assignments.slips import Slip

SLIPS = [
    Slip(
        name="the binomial coefficient is left out",
        part="a4-likelihood",
        code="""
def log_p_x_given_z(x, logits, n):
    return (x * logits - n * F.softplus(logits)).sum(-1)
""",
        lost=8,
        says="log (n choose x) is left out",
    ),
    Slip(
        name="pixels are averaged",
        part="a4-likelihood",
        code="""
def log_p_x_given_z(x, logits, n):
    log_choose = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
    return (log_choose + x * logits - n * F.softplus(logits)).mean(-1)
""",
        lost=13,
        says="the pixels are averaged",
    ),
    Slip(
        name="clamped probabilities",
        part="a4-likelihood",
        code="""
def log_p_x_given_z(x, logits, n):
    p = torch.sigmoid(logits).clamp(1e-12, 1 - 1e-12)
    log_choose = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
    return (log_choose + x * torch.log(p) + (n - x) * torch.log(1 - p)).sum(-1)
""",
        lost=1,
        says="Stay in log space",
    ),
    Slip(
        name="layers from the global generator",
        part="a4-model",
        code="""
class VAE(nn.Module):
    def __init__(self, pixels, hidden, latents, generator):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, pixels))

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=-1)

    def decode(self, z):
        return self.decoder(z)
""",
        lost=3,
        says="some first weights are not from the generator",
    ),
    Slip(
        name="a sigmoid at the end of the decoder",
        part="a4-model",
        code="""
class VAE(nn.Module):
    def __init__(self, pixels, hidden, latents, generator):
        super().__init__()
        self.encoder = nn.Sequential(
            linear(pixels, hidden, generator), nn.Tanh(), linear(hidden, 2 * latents, generator)
        )
        self.decoder = nn.Sequential(
            linear(latents, hidden, generator), nn.Tanh(), linear(hidden, pixels, generator), nn.Sigmoid()
        )

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=-1)

    def decode(self, z):
        return self.decoder(z)
""",
        lost=4,
        says="the last layer is linear",
    ),
    Slip(
        name="a decoder that remembers the image",
        part="a4-model",
        code="""
class VAE(nn.Module):
    def __init__(self, pixels, hidden, latents, generator):
        super().__init__()
        self.encoder = nn.Sequential(
            linear(pixels, hidden, generator), nn.Tanh(), linear(hidden, 2 * latents, generator)
        )
        self.decoder = nn.Sequential(
            linear(latents, hidden, generator), nn.Tanh(), linear(hidden, pixels, generator)
        )

    def encode(self, x):
        self.seen = x
        return self.encoder(x).chunk(2, dim=-1)

    def decode(self, z):
        logits = self.decoder(z)
        if logits.shape[-2:] == self.seen.shape:
            logits = logits + self.seen - self.seen.mean(0)
        return logits
""",
        lost=3,
        says="decode sees nothing but its z",
    ),
    Slip(
        name="the KL is averaged over latents",
        part="a4-elbo",
        code="""
def kl_to_prior(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - logvar - 1).mean(-1)
""",
        lost=9,
        says="the KL is averaged over the latents",
    ),
    Slip(
        name="the sign of the KL",
        part="a4-elbo",
        code="""
def elbo(model, x, eps, n):
    mu, logvar = model.encode(x)
    z = mu + torch.exp(0.5 * logvar) * eps
    return log_p_x_given_z(x, model.decode(z), n) + kl_to_prior(mu, logvar)
""",
        lost=7,
        says="the KL has the wrong sign",
    ),
    Slip(
        name="the log-variance is taken for the log standard deviation",
        part="a4-elbo",
        code="""
def elbo(model, x, eps, n):
    mu, logvar = model.encode(x)
    z = mu + torch.exp(logvar) * eps
    return log_p_x_given_z(x, model.decode(z), n) - kl_to_prior(mu, logvar)
""",
        lost=6,
        says="std = exp(logvar / 2)",
    ),
    Slip(
        name="z = mu in training",
        part="a4-elbo",
        code="""
def elbo(model, x, eps, n):
    mu, logvar = model.encode(x)
    z = mu.expand(eps.shape)
    return log_p_x_given_z(x, model.decode(z), n) - kl_to_prior(mu, logvar)
""",
        lost=7,
        says="z is the mean of q, the noise is left out",
    ),
    Slip(
        name="z is drawn under no_grad",
        part="a4-step",
        code="""
def elbo(model, x, eps, n):
    mu, logvar = model.encode(x)
    with torch.no_grad():
        z = mu + torch.exp(0.5 * logvar) * eps
    return log_p_x_given_z(x, model.decode(z), n) - kl_to_prior(mu, logvar)
""",
        lost=4,
        says="do not draw z under no_grad",
    ),
    Slip(
        name="zero_grad is missing",
        part="a4-step",
        code="""
def step(model, optimiser, x, eps, n):
    loss = -elbo(model, x, eps, n).mean()
    loss.backward()
    optimiser.step()
    return loss.item()
""",
        lost=4,
        says="clear it with optimiser.zero_grad()",
    ),
    Slip(
        name="the loss is summed over images",
        part="a4-step",
        code="""
def step(model, optimiser, x, eps, n):
    loss = -elbo(model, x, eps, n).mean(0).sum()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
""",
        lost=2,
        says="it is summed over the images",
    ),
    Slip(
        name="the ELBO is minimised",
        part="a4-step",
        code="""
def step(model, optimiser, x, eps, n):
    loss = elbo(model, x, eps, n).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
""",
        lost=5,
        says="the loss is minus the ELBO",
    ),
    Slip(
        name="the test images are trained on",
        part="a4-train",
        code="""
def fit(images, rows, *, n, hidden, latents, epochs, generator):
    model = VAE(images.shape[1], hidden, latents, generator)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(100):
            eps = torch.randn(1, len(batch), latents, generator=generator)
            step(model, adam, images[batch], eps, n)
    return model
""",
        lost=1,
        says="only images[rows] may be learned from",
    ),
    Slip(
        name="noise from the global generator",
        part="a4-train",
        code="""
def fit(images, rows, *, n, hidden, latents, epochs, generator):
    model = VAE(images.shape[1], hidden, latents, generator)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    x = images[rows]
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(100):
            step(model, adam, x[batch], torch.randn(1, len(batch), latents), n)
    return model
""",
        lost=2,
        says="the same seed gave two models",
    ),
    Slip(
        name="a plain autoencoder is trained",
        part="a4-train",
        code="""
def fit(images, rows, *, n, hidden, latents, epochs, generator):
    model = VAE(images.shape[1], hidden, latents, generator)
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    x = images[rows]
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(100):
            code = model.encode(x[batch])[0]
            loss = -log_p_x_given_z(x[batch], model.decode(code), n).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return model
""",
        lost=3,
        says="was it trained with draws of q",
    ),
    Slip(
        name="the trained weights are thrown away",
        part="a4-train",
        code="""
def fit(images, rows, *, n, hidden, latents, epochs, generator):
    return VAE(images.shape[1], hidden, latents, generator)
""",
        lost=4,
        says="nothing is learned from them",
    ),
    Slip(
        name="evaluation with the noise off",
        part="a4-evaluate",
        code="""
def evaluate(model, x, eps, n):
    with torch.no_grad():
        mu, logvar = model.encode(x)
        bound = log_p_x_given_z(x, model.decode(mu[None]), n)[0] - kl_to_prior(mu, logvar)
        return bound, bound
""",
        lost=3,
        says="z is the mean of q, the noise is left out",
    ),
    Slip(
        name="the mean of the log-weights",
        part="a4-evaluate",
        code="""
def evaluate(model, x, eps, n):
    with torch.no_grad():
        mu, logvar = model.encode(x)
        z = mu + torch.exp(0.5 * logvar) * eps
        log_lik = log_p_x_given_z(x, model.decode(z), n)
        log_ratio = 0.5 * (eps**2 + logvar - z**2).sum(-1)
        return (log_lik - kl_to_prior(mu, logvar)).mean(0), (log_lik + log_ratio).mean(0)
""",
        lost=2,
        says="average first, then take the logarithm",
    ),
    Slip(
        name="the KL inside the weight",
        part="a4-evaluate",
        code="""
def evaluate(model, x, eps, n):
    with torch.no_grad():
        bounds = elbo(model, x, eps, n)
        return bounds.mean(0), torch.logsumexp(bounds, 0) - math.log(len(eps))
""",
        lost=2,
        says="the KL has no place in an importance weight",
    ),
    Slip(
        name="exponentials first",
        part="a4-evaluate",
        code="""
def evaluate(model, x, eps, n):
    with torch.no_grad():
        mu, logvar = model.encode(x)
        z = mu + torch.exp(0.5 * logvar) * eps
        log_lik = log_p_x_given_z(x, model.decode(z), n)
        log_w = log_lik + 0.5 * (eps**2 + logvar - z**2).sum(-1)
        return elbo(model, x, eps, n).mean(0), log_w.exp().mean(0).log()
""",
        lost=2,
        says="exponentials of log-weights below -745 are zero",
    ),
]
