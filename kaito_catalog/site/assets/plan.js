// The plan in the browser: tables made by the generator (plan-data.js), looked up, multiplied and compared.
// kaito_catalog/plan.py says the same in Python; a test runs both on the same cases and wants the same bytes.
"use strict";

(function (root) {
  const GIB = 2 ** 30;

  const ceilDiv = (a, b) => Math.ceil(a / b);

  // overheads.captured_graphs: one graph a size for mixed batches, one a size for decoding alone.
  function capturedGraphs(maxNumSeqs, maxNumBatchedTokens, largest) {
    const top = Math.min(2 * maxNumSeqs, largest, maxNumBatchedTokens);
    const sizes = [1, 2, 4];
    for (let size = 8; size < 256; size += 8) sizes.push(size);
    for (let size = 256; size <= largest; size += 16) sizes.push(size);
    const upTo = (most) => sizes.filter((size) => size <= most).length;
    return upTo(top) + upTo(Math.min(top, maxNumSeqs));
  }
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

  function neededBytes(layout, maxModelLen, inFlightTokens) {
    return sum(
      layout.layers.map((layer) => layer[5] * blocks(layer, maxModelLen, inFlightTokens) * layer[4]),
    );
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
    const fits = (tokens) => poolBytes(layout, tokens, inFlightTokens) + grows(tokens) <= available;
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

  // A sparse indexer's workspace grows with the context, once it is the largest.
  const peakBytes = (account, model, maxModelLen) => Math.max(account.activationPeakBytes,
    account.peakAtLimitBytes - account.peakPerTokenBytes * (model.maxModelLen - maxModelLen));

  const refused = (fits, limitedBy, reason) => ({
    fits, limitedBy, reason, perGPU: null, kvCache: null, expectedErrorBytes: null,
  });

  // The plan of one model on gpuCount GPUs, tensor parallel.
  // model: an entry of data.models, or what fromConfig returned. gpu: an entry of data.gpus.
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
    const layout = model.layouts[size.layouts[position]];
    if (layout.fits) return refused(layout.fits, layout.limitedBy, layout.reason);

    const { maxNumSeqs, inFlightTokens } = data.deviceClasses[gpu.deviceClass];
    const budget = Math.ceil(gpu.memoryBytes * (utilization || gpu.utilization));
    const peak = peakBytes(account, model, maxModelLen);
    const overheads = account.nonTorchBytes + peak + account.cudaGraphBytes;
    const available = budget - account.weightsBytes - overheads;
    const wanted = poolBytes(layout, maxModelLen, inFlightTokens);
    const longest = longestModelLen(layout, available, model.maxModelLen, inFlightTokens,
      (tokens) => peakBytes(account, model, tokens) - peak);
    const concurrency = maxConcurrency(layout, available, maxModelLen, inFlightTokens);
    const error =
      account.weightsErrorBytes + gpu.expectedErrorBytes[model.hasTower ? 1 : 0][gpuCount > 1 ? 1 : 0];
    const verdict = judge({
      budget, weights: account.weightsBytes, overheads, available, wanted, longest, error, maxModelLen,
      maxNumSeqs, layout,
    });
    return {
      ...verdict,
      perGPU: {
        budgetBytes: budget,
        weightsBytes: account.weightsBytes,
        nonTorchBytes: account.nonTorchBytes,
        activationPeakBytes: peak,
        cudaGraphBytes: account.cudaGraphBytes,
        kvCacheAvailableBytes: available,
        kvCacheNeededBytes: neededBytes(layout, maxModelLen, inFlightTokens),
      },
      kvCache: {
        bytesPerToken: layout.bytesPerToken,
        tokens: Math.trunc(concurrency * maxModelLen),
        maxConcurrency: concurrency,
        longestModelLen: longest,
        poolBytes: wanted,
      },
      expectedErrorBytes: error,
    };
  }

  // The longest context that fits by more than the expected error; 0 where none does.
  function longestCertain(data, model, gpu, asked) {
    const shortest = plan(data, model, gpu, { ...asked, maxModelLen: data.shortestModelLen });
    if (shortest.fits !== "yes") return 0;
    const size = model.tensorParallel[String(asked.gpuCount)];
    const layout = model.layouts[size.layouts[data.cacheDtypes.indexOf(asked.cacheDtype || "auto")]];
    const spare = shortest.perGPU.kvCacheAvailableBytes - shortest.expectedErrorBytes - 1;
    const account = model.accounts[size.accounts[gpu.deviceClass]];
    return longestModelLen(layout, spare, model.maxModelLen, data.deviceClasses[gpu.deviceClass].inFlightTokens,
      (tokens) => peakBytes(account, model, tokens) - shortest.perGPU.activationPeakBytes);
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

  // A pasted config.json. Only dense models with full attention, stored unquantised; whatever could change
  // the arithmetic and is not handled here is refused by name.
  const LENGTHS = [
    "n_positions", "max_seq_len", "seq_length", "max_target_positions", "max_sequence_length",
    "max_seq_length", "seq_len", "model_max_length",
  ];
  const NOT_HANDLED = [
    "quantization_config", "compression_config", "text_config", "vision_config", "num_experts",
    "num_local_experts", "n_routed_experts", "qkv_bias", "bias", "lm_head_bias", "layer_types",
    "partial_rotary_factor", "original_max_position_embeddings", "num_layers", "n_layer", ...LENGTHS,
  ];

  class NotPlanned extends Error {}

  function whole(config, name, fallback) {
    const value = config[name] === undefined || config[name] === null ? fallback : config[name];
    if (value === undefined) throw new NotPlanned(`the configuration has no ${name}`);
    if (!Number.isInteger(value) || value < 1 || value > 1e9) {
      throw new NotPlanned(`${name} is not a whole number that can be planned`);
    }
    return value;
  }

  function flag(config, name) {
    const value = config[name];
    if (value !== undefined && value !== null && typeof value !== "boolean") {
      throw new NotPlanned(`${name} is neither true nor false`);
    }
    return value === true;
  }

  function fromConfig(data, config) {
    try {
      return dense(data, config);
    } catch (error) {
      if (error instanceof NotPlanned) return { unknown: error.message };
      throw error;
    }
  }

  function dense(data, config) {
    if (config === null || typeof config !== "object" || Array.isArray(config)) {
      throw new NotPlanned("this is no JSON object");
    }
    const known = data.dense;
    const architecture = (Array.isArray(config.architectures) && config.architectures[0]) || null;
    const family = Object.hasOwn(known.families, architecture) ? known.families[architecture] : null;
    if (!family) {
      throw new NotPlanned(
        `this page reads ${Object.keys(known.families).join(", ")}; ` +
        "for others, kaito-catalog plan knows more");
    }
    for (const name of NOT_HANDLED) {
      if (config[name] !== undefined && config[name] !== null && config[name] !== false) {
        throw new NotPlanned(`this page does not handle ${name}; kaito-catalog plan may`);
      }
    }
    if (config.sliding_window && config.use_sliding_window !== false) {
      throw new NotPlanned("this page does not handle sliding_window; kaito-catalog plan may");
    }
    for (const name of ["rope_parameters", "rope_scaling"]) {
      const rope = config[name];
      if (rope === undefined || rope === null) continue;
      const kind = rope.rope_type || rope.type || "default";
      const odd = rope.mrope_section || rope.partial_rotary_factor ||
        (kind === "default" && (rope.factor || rope.original_max_position_embeddings)) ||
        Object.values(rope).some((value) => value !== null && typeof value === "object");
      if (odd || !["default", "llama3"].includes(kind)) {
        throw new NotPlanned(`this page does not handle this ${name}; kaito-catalog plan may`);
      }
    }
    const stated = config.dtype || config.torch_dtype || "bfloat16";
    if (!["bfloat16", "float16", "half", "float32", "float"].includes(String(stated).replace("torch.", ""))) {
      throw new NotPlanned(`no plan for the dtype ${stated}`);
    }
    const dtypeBytes = 2; // vLLM's `auto` serves float32 checkpoints in two bytes as well.
    const hidden = whole(config, "hidden_size");
    const layers = whole(config, "num_hidden_layers");
    if (layers > 1000) throw new NotPlanned("no model has so many layers");
    const heads = whole(config, "num_attention_heads");
    const kvHeads = whole(config, "num_key_value_heads", heads);
    if (heads % kvHeads) throw new NotPlanned(`${heads} heads are not a multiple of ${kvHeads} KV heads`);
    const headDim = whole(config, "head_dim", family.headDim || hidden / heads);
    const width = whole(config, "intermediate_size");
    const vocabulary = whole(config, "vocab_size");
    const limit = whole(config, "max_position_embeddings");
    const tied = flag(config, "tie_word_embeddings");
    const attentionBias = flag(config, "attention_bias");
    const qkvBias = family.qkvBias === null ? attentionBias : family.qkvBias;
    const outputBias = family.outputBias === null ? attentionBias : family.outputBias;
    const mlpBias = flag(config, "mlp_bias");
    const padded = ceilDiv(vocabulary, known.vocabularyPadding) * known.vocabularyPadding;

    const sizes = {};
    const accounts = [];
    const layouts = [];
    for (let tp = 1; tp <= data.mostGPUs; tp += 1) {
      const illegal = refusal(tp, { heads, kvHeads, width, padded });
      if (illegal) {
        sizes[tp] = illegal;
        continue;
      }
      const localKv = Math.max(1, Math.floor(kvHeads / tp));
      const query = (heads / tp) * headDim;
      const local = width / tp;
      const layer =
        hidden * (query + 2 * localKv * headDim) + (qkvBias ? query + 2 * localKv * headDim : 0) +
        query * hidden + (outputBias ? hidden : 0) + family.headNorms * headDim +
        hidden * 2 * local + (mlpBias ? 2 * local : 0) + local * hidden + (mlpBias ? hidden : 0) +
        2 * hidden;
      const embedding = (padded / tp) * hidden;
      const weightsBytes = dtypeBytes * (layers * layer + embedding * (tied ? 1 : 2) + hidden);
      const widest = Math.max((3 * width) / tp, (2 * heads * headDim + 2 * kvHeads * headDim) / tp);
      // overheads.compiled_copy: the embedding that torch.compile tries fused kernels on.
      const copy = Math.floor((vocabulary * hidden * dtypeBytes) / tp);
      sizes[tp] = { accounts: [], layouts: [] };
      for (const { maxNumBatchedTokens, maxNumSeqs } of data.deviceClasses) {
        const states = maxNumBatchedTokens * hidden * dtypeBytes;
        const forward = known.forwardHiddenStates * states + maxNumBatchedTokens * dtypeBytes * widest;
        const rows = Math.min(maxNumBatchedTokens, maxNumSeqs);
        const sampler =
          known.hiddenStates * states + rows * vocabulary * (dtypeBytes + known.samplerBytesPerLogit);
        const graphs = known.cudaGraphs;
        const captured = capturedGraphs(maxNumSeqs, maxNumBatchedTokens, graphs.largest) / graphs.most;
        sizes[tp].accounts.push(accounts.length);
        accounts.push({
          weightsBytes,
          nonTorchBytes: known.nonTorch[tp > 1 ? 1 : 0],
          activationPeakBytes:
            Math.trunc(known.activationFixed + Math.max(forward, sampler, known.compiledCopies * copy)) + limit * headDim * dtypeBytes,
          cudaGraphBytes: Math.trunc((graphs.fixed + graphs.perLayer * layers) * captured),
          peakPerTokenBytes: 0,
          peakAtLimitBytes: 0,
          weightsErrorBytes: known.pinnedCopies * copy,
        });
      }
      for (const dtype of data.cacheDtypes) {
        const elementBytes = dtype === "auto" ? dtypeBytes : known.cacheDtypeBytes[dtype];
        const page = known.blockSize * localKv * 2 * headDim * elementBytes;
        sizes[tp].layouts.push(layouts.length);
        layouts.push({
          blockBytes: layers * page,
          checkBytes: null,
          bytesPerToken: layers * kvHeads * 2 * headDim * elementBytes,
          groups: [["full", known.blockSize, null, 1, layers * page]],
          layers: [["full", known.blockSize, null, 1, page, layers]],
        });
      }
    }
    return { maxModelLen: limit, hasTower: false, tensorParallel: sizes, accounts, layouts };
  }

  function refusal(tp, { heads, kvHeads, width, padded }) {
    if (heads % tp) return `${heads} attention heads cannot be divided by ${tp}`;
    if ((kvHeads >= tp && kvHeads % tp) || (kvHeads < tp && tp % kvHeads)) {
      return `${kvHeads} KV heads can neither be divided by ${tp} nor repeated evenly on ${tp} GPUs`;
    }
    if (padded % tp) return `the padded vocabulary (${grouped(padded)}) cannot be divided by ${tp}`;
    if (width % tp) return `the intermediate size (${grouped(width)}) cannot be divided by ${tp}`;
    return null;
  }

  const api = { plan, longestCertain, fromConfig, gib, grouped };
  if (typeof module !== "undefined" && module.exports) module.exports = api;
  else root.kaitoCatalogPlan = api;
})(globalThis);
