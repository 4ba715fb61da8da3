// The plan in the browser: tables made by the generator (plan-data.js), looked up, multiplied and compared.
// kaito_catalog/memory/plan.py says the same in Python; a test runs both on the same cases and wants the same bytes.
"use strict";

(function (root) {
  const GIB = 2 ** 30;

  const ceilDiv = (a, b) => Math.ceil(a / b);
  const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

  // As Python formats it: exact, halves to even. Integers only, so that no digit depends on a rounding mode.
  function gib(bytes) {
    const digits = Math.abs(bytes) >= 10 * GIB ? 1 : 2;
    const scale = 10n ** BigInt(digits);
    const size = BigInt(Math.abs(bytes)) * scale;
    const unit = BigInt(GIB);
    let units = size / unit;
    const rest = (size % unit) * 2n;
    if (rest > unit || (rest === unit && units % 2n === 1n)) units += 1n;
    const text = `${grouped(units / scale)}.${String(units % scale).padStart(digits, "0")} GiB`;
    return bytes < 0 ? `-${text}` : text;
  }

  // A group of layers: [kind, blockSize, window, states, pageBytes]. Blocks that one request holds at most.
  function blocks([kind, blockSize, window, states], maxModelLen, inFlightTokens) {
    switch (kind) {
      case "linear-state":
        return states;
      case "ring":
        return 1;
      case "cross":
        return ceilDiv(inFlightTokens, blockSize);
      case "sliding":
        return ceilDiv(Math.min(window - 1 + inFlightTokens, maxModelLen), blockSize) + 1;
      case "chunked":
        return ceilDiv(Math.min(window + inFlightTokens, maxModelLen), blockSize);
      case "full":
      case "mla":
        return ceilDiv(maxModelLen, blockSize);
      default:
        throw new Error(`no arithmetic for layers of the kind ${kind}`);
    }
  }

  const sum = (values) => values.reduce((total, value) => total + value, 0);

  function poolBytes(layout, maxModelLen, inFlightTokens) {
    const held = sum(layout.groups.map((group) => blocks(group, maxModelLen, inFlightTokens)));
    return held * (layout.checkBytes || layout.blockBytes);
  }

  function maxConcurrency(layout, available, maxModelLen, inFlightTokens) {
    let held = sum(layout.groups.map((group) => blocks(group, maxModelLen, inFlightTokens)));
    if (layout.checkBytes !== null) {
      const bytes = sum(
        layout.groups.map((group) => blocks(group, maxModelLen, inFlightTokens) * group[4]),
      );
      held = ceilDiv(bytes, layout.groups[0][4]);
    }
    if (!held || !layout.blockBytes) return 0;
    return Math.max(0, Math.floor(available / layout.blockBytes)) / held;
  }

  // `grows`: bytes that a context takes beside the cache more than the one that `available` is for.
  function longestModelLen(layout, available, limit, inFlightTokens, grows) {
    if (!layout.groups.length) return limit;
    const fits = (tokens) => poolBytes(layout, tokens, inFlightTokens) + layout.reservedBytes + grows(tokens) <= available;
    if (limit < 1 || !fits(1)) return 0;
    let low = 1;
    let high = limit;
    while (low < high) {
      const middle = Math.floor((low + high + 1) / 2);
      if (fits(middle)) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  // A sparse indexer's workspace grows with the context, once it is the largest; a video that is profiled has as many
  // images as the context holds; some encoders take as many frames at once as a tenth of the GPU allows.
  function peakBytes(account, model, gpu, maxModelLen) {
    let peak = Math.max(account.activationPeakBytes,
      account.peakAtLimitBytes - account.peakPerTokenBytes * (model.maxModelLen - maxModelLen));
    for (const [tokens, bytes] of account.peakFrom) if (maxModelLen >= tokens) peak = Math.max(peak, bytes);
    const frames = account.peakOfFrames;
    if (frames) {
      const allowed = Math.max(1, Math.floor(Math.floor(gpu.memoryBytes / 10) / frames.reckonedBytes));
      const less = frames.count - Math.min(frames.count, allowed);
      peak = Math.max(peak, frames.peakBytes - less * frames.bytesPerFrame);
    }
    return peak;
  }

  const refused = (fits, limitedBy, reason) => ({
    fits, limitedBy, reason, perGPU: null, kvCache: null, expectedErrorBytes: null,
  });

  // The plan of one model on gpuCount GPUs, tensor parallel.
  // model: an entry of data.models, or what pasted.js read. gpu: an entry of data.gpus.
  function plan(data, model, gpu, { gpuCount, maxModelLen, cacheDtype = "auto", utilization = null }) {
    if (model.unknown) return refused("unknown", "architecture", model.unknown);
    const size = model.tensorParallel[String(gpuCount)];
    if (size === undefined) {
      return refused("unknown", "parallelism", `this page plans 1 to ${data.mostGPUs} GPUs`);
    }
    if (typeof size === "string") return refused("no", "parallelism", size);
    if (maxModelLen < data.shortestModelLen) {
      return refused("unknown", "maxModelLen", `this page plans ${data.shortestModelLen} tokens and more`);
    }
    if (maxModelLen > model.maxModelLen) {
      return refused("no", "maxModelLen",
        `max_model_len ${grouped(maxModelLen)} is more than the model's own limit of ` +
        `${grouped(model.maxModelLen)} tokens, and vLLM refuses it`);
    }
    const account = model.accounts[size.accounts[gpu.deviceClass]];
    if (account.fits && account.limitedBy !== "kvCache") {
      return refused(account.fits, account.limitedBy, account.reason);
    }
    const position = data.cacheDtypes.indexOf(cacheDtype);
    if (position < 0) return refused("unknown", "kvCache", `no plan for kv_cache_dtype '${cacheDtype}'`);
    const layout = model.layouts[model.layoutsByDtype[size.layouts[gpu.deviceClass]][position]];
    if (layout.fits) return refused(layout.fits, layout.limitedBy, layout.reason);

    const { maxNumSeqs, inFlightTokens } = data.deviceClasses[gpu.deviceClass];
    const share = utilization || gpu.utilization;
    const budget = Math.ceil(gpu.memoryBytes * share);
    const asked = `gpu_memory_utilization ${share} is ${gib(budget)}, there are ${gib(gpu.memoryBytes)}`;
    if (budget >= gpu.memoryBytes) return refused("no", "freeMemory", `vLLM does not start: ${asked}`);
    const peak = peakBytes(account, model, gpu, maxModelLen);
    const overheads = account.nonTorchBytes + peak + account.cudaGraphBytes;
    const available = budget - account.weightsBytes - overheads;
    const wanted = poolBytes(layout, maxModelLen, inFlightTokens) + layout.reservedBytes;
    if (![available, wanted].every(Number.isSafeInteger)) {
      return refused("unknown", "weights", "this page counts bytes up to 2⁵³");
    }
    const longest = longestModelLen(layout, available, model.maxModelLen, inFlightTokens,
      (tokens) => peakBytes(account, model, gpu, tokens) - peak);
    const concurrency = maxConcurrency(layout, available, maxModelLen, inFlightTokens);
    const error =
      account.weightsErrorBytes + gpu.expectedErrorBytes[model.hasTower ? 1 : 0][gpuCount > 1 ? 1 : 0];
    let verdict = judge({
      budget, weights: account.weightsBytes, overheads, available, wanted, longest, error, maxModelLen,
      maxNumSeqs, layout,
    });
    if (verdict.fits === "yes" && budget > gpu.memoryBytes - data.beforeVllmBytes) {
      const words = `CUDA takes up to ${gib(data.beforeVllmBytes)} before vLLM looks at what is free`;
      verdict = { fits: "tight", limitedBy: "freeMemory", reason: `${asked}, and ${words}` };
    }
    return {
      ...verdict,
      perGPU: {
        budgetBytes: budget,
        weightsBytes: account.weightsBytes,
        nonTorchBytes: account.nonTorchBytes,
        activationPeakBytes: peak,
        cudaGraphBytes: account.cudaGraphBytes,
        kvCacheAvailableBytes: available,
        kvCacheNeededBytes: wanted,
      },
      kvCache: {
        bytesPerToken: layout.bytesPerToken,
        tokens: Math.trunc(concurrency * maxModelLen),
        maxConcurrency: concurrency,
        longestModelLen: longest,
      },
      expectedErrorBytes: error,
    };
  }

  // The longest context that fits by more than the expected error; 0 where none does.
  function longestCertain(data, model, gpu, asked) {
    const shortest = plan(data, model, gpu, { ...asked, maxModelLen: data.shortestModelLen });
    if (shortest.fits !== "yes") return 0;
    const size = model.tensorParallel[String(asked.gpuCount)];
    const position = data.cacheDtypes.indexOf(asked.cacheDtype || "auto");
    const layout = model.layouts[model.layoutsByDtype[size.layouts[gpu.deviceClass]][position]];
    const spare = shortest.perGPU.kvCacheAvailableBytes - shortest.expectedErrorBytes - 1;
    const account = model.accounts[size.accounts[gpu.deviceClass]];
    return longestModelLen(layout, spare, model.maxModelLen, data.deviceClasses[gpu.deviceClass].inFlightTokens,
      (tokens) => peakBytes(account, model, gpu, tokens) - shortest.perGPU.activationPeakBytes);
  }

  function judge(p) {
    const margin = p.available - p.wanted;
    if (margin < 0) {
      let limitedBy = "kvCache";
      let words =
        `one request of ${grouped(p.maxModelLen)} tokens needs ${gib(p.wanted)} of KV cache and ` +
        `${gib(p.available)} are left`;
      if (p.weights > p.budget) {
        limitedBy = "weights";
        words = `the weights take ${gib(p.weights)}`;
      } else if (p.weights + p.overheads > p.budget) {
        limitedBy = "overheads";
        words = `weights and what vLLM needs beside take ${gib(p.weights + p.overheads)}`;
      }
      let reason = `${words} of a budget of ${gib(p.budget)}`;
      if (p.longest) reason += `; ${grouped(p.longest)} tokens would fit`;
      if (-margin <= p.error) {
        return { fits: "tight", limitedBy, reason: `${reason}; the plan may be off by ${gib(p.error)}` };
      }
      return { fits: "no", limitedBy, reason };
    }
    if (p.layout.groups.some((group) => group[0] === "linear-state") && p.layout.blockBytes) {
      const held = Math.floor(p.available / p.layout.blockBytes);
      const off = Math.floor(p.error / p.layout.blockBytes);
      if (held < p.maxNumSeqs) {
        const reason =
          `the cache has ${grouped(held)} blocks for states and max_num_seqs is ` +
          `${grouped(p.maxNumSeqs)}; vLLM stops with CUDA graphs on, so set max_num_seqs to ` +
          `${grouped(held)} or less`;
        if (held + off < p.maxNumSeqs) return { fits: "no", limitedBy: "maxNumSeqs", reason };
        const words = `${reason}; the plan may be off by ${grouped(off)} blocks`;
        return { fits: "tight", limitedBy: "maxNumSeqs", reason: words };
      }
    }
    if (margin <= p.error) {
      return {
        fits: "tight",
        limitedBy: "kvCache",
        reason: `fits with ${gib(margin)} to spare, and the plan may be off by ${gib(p.error)}`,
      };
    }
    return { fits: "yes", limitedBy: null, reason: null };
  }

  const api = { plan, longestCertain, gib, grouped };
  if (typeof module !== "undefined" && module.exports) module.exports = api;
  else root.kaitoCatalogPlan = api;
})(globalThis);
